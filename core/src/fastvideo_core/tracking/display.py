"""How a logged step is shown to whoever started the run: a bar, a line, a JSON object, or not at all."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TextIO

from tqdm import tqdm

logger = logging.getLogger(__name__)

SAMPLING_LINES = 30.0
"""Seconds between two lines of a log that say where a validation is."""


@dataclass(frozen=True)
class Standing:
    """Where a run is after a logged step.

    Attributes:
        metrics: everything that was logged, with the measured speed and memory.
        remaining: seconds to the end, by the speed of recent steps.
    """

    step: int
    max_steps: int
    metrics: Mapping[str, float]
    remaining: float


@dataclass(frozen=True)
class Sampling:
    """Where a validation is.

    Attributes:
        step, max_steps: of the training.
        label: tells several ways of sampling of one validation apart; empty where there is one.
        prompt, prompts: which of how many, from 1; of a validation that is over, how many were sampled.
        sampling_step, sampling_steps: of the prompt, likewise.
        seconds: that it took, once it is over; else None.
    """

    step: int
    max_steps: int
    label: str = ""
    prompt: int = 0
    prompts: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0
    seconds: float | None = None

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"validated {self.prompts} videos in {self.seconds:.1f} s"
        label = f"{self.label} " if self.label else ""
        return f"validating {label}{self.prompt}/{self.prompts}, step {self.sampling_step}/{self.sampling_steps}"


class Display(Protocol):
    """Shows standings; `close` leaves the stream as others may go on writing to it."""

    def show(self, standing: Standing) -> None: ...

    def validating(self, sampling: Sampling) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Nothing at all: processes that do not report, and `--quiet`."""

    def show(self, standing: Standing) -> None: ...

    def validating(self, sampling: Sampling) -> None: ...

    def close(self) -> None: ...


class Guarded:
    """Another display; when it fails (a full disk, a reader that has gone) that is reported once, and training goes on."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._failed = False

    def show(self, standing: Standing) -> None:
        self._attempt(lambda: self._display.show(standing))

    def validating(self, sampling: Sampling) -> None:
        self._attempt(lambda: self._display.validating(sampling))

    def close(self) -> None:
        self._attempt(self._display.close)

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            if not self._failed:
                self._failed = True
                logger.error(
                    "the run's steps cannot be shown: %s: %s (training goes on, metrics.jsonl has them; it is still tried, "
                    "further failures are not shown)",
                    type(error).__name__,
                    error,
                )


class LogLines:
    """One line for each logged step, for files; a validation has one at its start and end, and between them now and then.

    Args:
        every_metric: all metrics instead of losses, learning rates, speed and memory.
    """

    def __init__(self, stream: TextIO, *, every_metric: bool = False) -> None:
        self._stream = stream
        self._every_metric = every_metric
        self._next_sampling = 0.0  # when the next line may say where a validation is

    def show(self, standing: Standing) -> None:
        parts = [f"step {standing.step}/{standing.max_steps}", *facts(standing), f"ETA {clock(standing.remaining)}"]
        if self._every_metric:
            parts += [f"{name} {value:.4g}" for name, value in standing.metrics.items() if not _is_shown(name)]
        self._write(parts)

    def validating(self, sampling: Sampling) -> None:
        over, now = sampling.seconds is not None, time.monotonic()
        if over or now >= self._next_sampling:
            self._next_sampling = 0.0 if over else now + SAMPLING_LINES
            self._write([f"step {sampling.step}/{sampling.max_steps}", str(sampling)])

    def close(self) -> None: ...

    def _write(self, parts: Sequence[str]) -> None:
        self._stream.write(" | ".join(parts) + "\n")
        self._stream.flush()


class TerminalBar:
    """A bar that is rewritten in place, with losses, learning rates, speed and memory behind it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[None] | None = None
        self._text = ""

    def show(self, standing: Standing) -> None:
        # The time left first: what does not fit is cut off at the terminal's edge.
        self._text = " | ".join([f"ETA {clock(standing.remaining)}", *facts(standing)])
        self._draw(standing.step, standing.max_steps, self._text)

    def validating(self, sampling: Sampling) -> None:
        self._draw(sampling.step, sampling.max_steps, self._text if sampling.seconds is not None else str(sampling))

    def _draw(self, step: int, max_steps: int, text: str) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=max_steps,
                initial=step - 1,
                unit="step",
                dynamic_ncols=True,
                file=self._stream,
                bar_format="{n_fmt}/{total_fmt} |{bar:20}| {desc}",
            )
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(step - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class JsonLines:
    """One JSON object for each logged step, for programs: `event` is "step"; and for each prompt that a validation begins
    ("validating"), and its end ("validated")."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, standing: Standing) -> None:
        about = {"step": standing.step, "max_steps": standing.max_steps, "eta_seconds": round(standing.remaining, 3)}
        write_event(self._stream, "step", {**about, **standing.metrics})

    def validating(self, sampling: Sampling) -> None:
        if sampling.seconds is not None:
            about = {"step": sampling.step, "videos": sampling.prompts, "seconds": round(sampling.seconds, 3)}
            write_event(self._stream, "validated", about)
        elif sampling.sampling_step <= 1:
            names = ("step", "label", "prompt", "prompts", "sampling_steps")
            write_event(self._stream, "validating", {name: getattr(sampling, name) for name in names})

    def close(self) -> None: ...


def write_event(stream: TextIO, event: str, content: Mapping[str, object]) -> None:
    """One line of `--json`; numbers that are not finite are texts, as JSON has none."""
    plain = {name: _finite(value) for name, value in content.items()}
    stream.write(json.dumps({"event": event, **plain}, allow_nan=False) + "\n")
    stream.flush()


def display_for(stream: TextIO) -> Display:
    """The bar on a terminal, lines in a file and on terminals that do not say how wide they are."""
    return TerminalBar(stream) if stream.isatty() and _has_columns(stream) else LogLines(stream)


def facts(standing: Standing) -> list[str]:
    """Losses, every learning rate by its name, speed and peak memory."""
    metrics = standing.metrics
    losses = [f"{name} {value:.4f}" for name, value in metrics.items() if name.endswith("loss")]
    rates = [f"{name} {value:.2e}" for name, value in metrics.items() if name.startswith("lr/")]
    return [
        *losses,
        *rates,
        f"{metrics['seconds_per_step']:.2f} s/it",
        f"{metrics['samples_per_second']:.2f} samples/s",
        f"mem {metrics['peak_memory_bytes'] / 2**30:.2f} GiB",
    ]


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def standard_display() -> Display:
    """What a run shows when nobody asked for anything else."""
    return display_for(sys.stdout)


def _has_columns(stream: TextIO) -> bool:
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:  # a stream that only says that it is a terminal
        return True


def _is_shown(name: str) -> bool:
    return name.endswith("loss") or name.startswith("lr/") or name in _SPEED


_SPEED = ("seconds_per_step", "samples_per_second", "peak_memory_bytes")


def _finite(value: object) -> object:
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    return value
