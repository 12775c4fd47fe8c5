"""How a logged step is shown to whoever started the run: a bar, a line, a JSON object, or not at all."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TextIO

from tqdm import tqdm

from fastvideo_core.launch.stdio import FAILURES
from fastvideo_core.tracking.jsonl import json_line

SAMPLING_LINES = 30.0  # seconds between two lines of a log that say where a validation is
_SPEED = ("seconds_per_step", "samples_per_second", "peak_memory_bytes")
_BAR = "{n_fmt}/{total_fmt} |{bar:20}| {desc}"


@dataclass(frozen=True)
class LoggedStep:
    """All `metrics` of a step, with measured speed and memory, and the seconds `remaining` to the end, by recent speed."""

    step: int
    max_steps: int
    metrics: Mapping[str, float]
    remaining: float

    @property
    def eta(self) -> str:
        return f"ETA {timedelta(seconds=round(self.remaining))}"

    def facts(self) -> list[str]:
        """Losses, every learning rate by its name, speed and peak memory."""
        seconds, samples, memory = (self.metrics[name] for name in _SPEED)
        losses = [f"{name} {value:.4f}" for name, value in self.metrics.items() if name.endswith("loss")]
        rates = [f"{name} {value:.2e}" for name, value in self.metrics.items() if name.startswith("lr/")]
        return [*losses, *rates, f"{seconds:.2f} s/it", f"{samples:.2f} samples/s", f"mem {memory / 2**30:.2f} GiB"]

    def other_metrics(self) -> list[str]:
        """What is no fact."""
        names = [name for name in self.metrics if not name.endswith("loss") and not name.startswith("lr/")]
        return [f"{name} {self.metrics[name]:.4g}" for name in names if name not in _SPEED]


@dataclass(frozen=True)
class Sampling:
    """Where the validation after a step is; one that is over has sampled `prompts`, in `seconds`.

    `label` tells several ways of sampling apart; prompts and a prompt's sampling steps count from 1.
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


class Display:
    """Shows where a run is; this one, of processes that do not report and of `--quiet`, shows nothing."""

    def show(self, logged: LoggedStep) -> None: ...

    def validating(self, sampling: Sampling) -> None: ...

    def close(self) -> None:
        """Leaves the stream as others may go on writing to it."""


class LogLines(Display):
    """One line for each logged step, for files; a validation has one at its start and end, and between them now and then."""

    def __init__(self, stream: TextIO, *, every_metric: bool = False) -> None:
        self._stream = stream
        self._every_metric = every_metric
        self._next_sampling = 0.0  # when the next line may say where a validation is

    def show(self, logged: LoggedStep) -> None:
        others = logged.other_metrics() if self._every_metric else []
        self._write(logged, *logged.facts(), logged.eta, *others)

    def validating(self, sampling: Sampling) -> None:
        over, now = sampling.seconds is not None, time.monotonic()
        if over or now >= self._next_sampling:
            self._next_sampling = 0.0 if over else now + SAMPLING_LINES
            self._write(sampling, str(sampling))

    def _write(self, at: LoggedStep | Sampling, *parts: str) -> None:
        self._stream.write(" | ".join((f"step {at.step}/{at.max_steps}", *parts)) + "\n")
        self._stream.flush()


class TerminalBar(Display):
    """A bar that is rewritten in place, with losses, learning rates, speed and memory behind it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[None] | None = None
        self._text = ""

    def show(self, logged: LoggedStep) -> None:
        self._text = " | ".join([logged.eta, *logged.facts()])  # what does not fit is cut off at the terminal's edge
        self._draw(logged, self._text)

    def validating(self, sampling: Sampling) -> None:
        self._draw(sampling, self._text if sampling.seconds is not None else str(sampling))

    def _draw(self, at: LoggedStep | Sampling, text: str) -> None:
        if self._bar is None:
            self._bar = tqdm(total=at.max_steps, dynamic_ncols=True, file=self._stream, bar_format=_BAR)
        self._bar.n = at.step
        self._bar.set_description_str(text)

    def close(self) -> None:
        with suppress(*FAILURES):
            if self._bar is not None:
                self._bar.close()


class JsonLines(Display):
    """One JSON object for each logged step, for programs: `event` is "step"; and for each prompt that a validation begins
    ("validating"), and its end ("validated")."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, logged: LoggedStep) -> None:
        eta = round(logged.remaining, 3)
        self._write("step", {"step": logged.step, "max_steps": logged.max_steps, "eta_seconds": eta, **logged.metrics})

    def validating(self, sampling: Sampling) -> None:
        if sampling.seconds is not None:
            seconds = round(sampling.seconds, 3)
            self._write("validated", {"step": sampling.step, "videos": sampling.prompts, "seconds": seconds})
        elif sampling.sampling_step <= 1:
            names = ("step", "label", "prompt", "prompts", "sampling_steps")
            self._write("validating", {name: getattr(sampling, name) for name in names})

    def _write(self, event: str, content: Mapping[str, object]) -> None:
        self._stream.write(json_line({"event": event, **content}))
        self._stream.flush()


def display_for(stream: TextIO) -> Display:
    """The bar on a terminal, lines in a file and on terminals that do not say how wide they are."""
    try:
        is_wide = os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:  # no terminal of the system's
        is_wide = stream.isatty()
    return TerminalBar(stream) if is_wide else LogLines(stream)
