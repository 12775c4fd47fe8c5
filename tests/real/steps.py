"""The steps of the real run: each command is printed as it would be typed, run as a process, timed and accounted for."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHOWN_LINES = 30


class StepFailedError(Exception):
    """A command failed, or what it made is not what it should be."""


@dataclass(frozen=True)
class Step:
    """One row of the table: what was done, how long it took, and what about it was checked."""

    name: str
    what: str
    seconds: float
    checked: str


@dataclass
class Steps:
    """Runs steps in one folder and remembers them.

    Args:
        folder: where the commands run; paths in them are relative to it.
    """

    folder: Path
    done: list[Step] = field(default_factory=list)

    def command(self, name: str, arguments: Sequence[str], check: Callable[[str], str]) -> None:
        """`fastvideo-distill` with these arguments; `check` gets its output, returns what holds, or raises."""
        self._process(name, "fastvideo-distill", ["-m", "fastvideo_core", *arguments], arguments, check)

    def script(self, name: str, script: Path, arguments: Sequence[str], check: Callable[[str], str]) -> None:
        """A Python script in a process of its own."""
        self._process(name, f"python {script.name}", [str(script), *arguments], arguments, check)

    def function(self, name: str, what: str, work: Callable[[], str]) -> None:
        """Work in this process; it returns what holds, or raises."""
        print(f"\n# {what}", flush=True)
        started = time.perf_counter()
        self._finish(name, what, started, work())

    def table(self) -> str:
        """Every step so far."""
        head = ("step", "command", "seconds", "checked")
        rows = [(step.name, step.what, f"{step.seconds:.1f}", step.checked) for step in self.done]
        rows.append(("total", "", f"{sum(step.seconds for step in self.done):.1f}", ""))
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3]]).rstrip()
            for row in (head, *rows)
        ]
        return "\n".join(lines)

    def _process(
        self, name: str, program: str, command: Sequence[str], shown: Sequence[str], check: Callable[[str], str]
    ) -> None:
        typed = f"{program} {shlex.join(shown)}"
        print(f"\n$ {typed}", flush=True)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        lines = done.stdout.splitlines()
        if done.returncode:
            print("\n".join(lines[-SHOWN_LINES:]))
            raise StepFailedError(f"step '{name}' ended with exit code {done.returncode}: {typed}")
        print("\n".join(_shortened(lines)))
        self._finish(name, typed if len(typed) <= 64 else f"{typed[:61]}...", started, check(done.stdout))

    def _finish(self, name: str, what: str, started: float, checked: str) -> None:
        step = Step(name, what, time.perf_counter() - started, checked)
        print(f"-> {step.seconds:.1f} s; {checked}", flush=True)
        self.done.append(step)


def _shortened(lines: Sequence[str]) -> list[str]:
    """The output for a reader: of the many lines of a progress, the first ones and the last ones."""
    plain = [line.rsplit("\r", 1)[-1] for line in lines if line.strip()]
    if len(plain) <= 12:
        return plain
    return [*plain[:6], f"... {len(plain) - 12} lines ...", *plain[-6:]]
