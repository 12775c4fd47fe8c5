"""Does a transcript of the documentation still hold? `python tests/new_user.py PAGE`, in the environment of a new user.

Runs, in an empty folder and in the order of the page, what it shows:

- a block ```console: every line behind `$ ` is a command of bash, the lines below are its output. A line `...` stands for any
  number of lines; numbers may differ, other words may not. Below `<!-- ends with N -->` the block's last command ends with N, all
  others with 0.
- a block below `<!-- file: PATH -->` is written to that file; with `of PAGE` behind the path it is that page's example.
- a block ```diff below `<!-- edit: PATH -->` replaces its lines `-` by its lines `+`, at the one place where they stand.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

STEP = re.compile(
    r"<!-- file: (?P<path>\S+) of (?P<page>\S+) -->"
    r"|(?:<!-- (?P<kind>file|edit|ends with):? (?P<what>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```",
    re.DOTALL,
)
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?")
LIMIT_SECONDS = 420


class TranscriptError(Exception):
    """Something happens otherwise than the page says."""


@dataclass(frozen=True)
class Command:
    """A command of the page, the output that stands there, and its exit status."""

    text: str
    output: tuple[str, ...]
    status: int


def commands(block: str, last_status: int) -> list[Command]:
    """The commands of a console block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif found:
            found[-1][1].append(line)
        else:
            raise TranscriptError(f"output before the first command: {line}")
    return [
        Command(text, tuple(output), last_status if index == len(found) - 1 else 0)
        for index, (text, output) in enumerate(found)
    ]


def differs(expected: tuple[str, ...], found: str) -> str:
    """The first line of the page that the output does not have at its place, or ""."""
    lines = [_comparable(line) for line in found.splitlines()]
    lines = [line for line in lines if line]
    position, anywhere = 0, False
    for line in expected:
        wanted = _comparable(line)
        if not wanted:
            continue
        if wanted == "...":
            anywhere = True
            continue
        places = [index for index in range(position, len(lines)) if lines[index] == wanted]
        if not places or (not anywhere and places[0] != position):
            return line
        position, anywhere = places[0] + 1, False
    return "" if anywhere or position == len(lines) or not expected else f"(the end, but there is: {lines[position]})"


def _comparable(line: str) -> str:
    line = re.sub(r" \(\d+:\d\d:\d\d\)", "", line)  # pytest, behind durations of more than a minute
    return " ".join(NUMBER.sub("N", line).replace("=", " ").split())


def edited(text: str, diff: str) -> str:
    """The text with the diff's lines replaced.

    Raises:
        TranscriptError: they stand at no place, or at several.
    """
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if line[:1] in "- ")
    after = "\n".join(line[1:] for line in lines if line[:1] in "+ ")
    if text.count(before) != 1:
        raise TranscriptError(f"these lines stand {text.count(before)} times in the file to edit:\n{before}")
    return text.replace(before, after)


class Session:
    """The new user's shell: one folder after another, files, commands."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._environment = {**os.environ, "COLUMNS": "100"}
        self._environment.pop("CI", None)  # with it pytest shortens nothing

    def follow(self) -> int:
        """Everything that the page shows; gives the number of commands."""
        ran = 0
        for step in STEP.finditer(self._page.read_text(encoding="utf-8")):
            kind, what, text = step["kind"], step["what"], step["text"]
            if step["page"]:
                (self._folder / step["path"]).write_text(self._example(step["page"], step["path"]), encoding="utf-8")
            elif kind == "file":
                (self._folder / what).write_text(text, encoding="utf-8")
            elif kind == "edit":
                file = self._folder / what
                file.write_text(edited(file.read_text(encoding="utf-8"), text), encoding="utf-8")
            elif step["language"] == "console":
                for command in commands(text, int(what) if kind else 0):
                    self._run(command)
                    ran += 1
        return ran

    def _example(self, page: str, name: str) -> str:
        text = (self._page.parent / page).read_text(encoding="utf-8")
        found = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
        if found is None:
            raise TranscriptError(f"{page} has no example {name}")
        return found[1]

    def _run(self, command: Command) -> None:
        print(f"$ {command.text}", flush=True)
        started = time.perf_counter()
        state = self._folder / ".folder"
        script = f'{command.text}\nstatus=$?\npwd > "{state}"\nexit $status'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout.rstrip(), f"# {time.perf_counter() - started:.0f} s", sep="\n", flush=True)
        if done.returncode != command.status:
            raise TranscriptError(f"`{command.text}` ended with {done.returncode}, not {command.status}")
        if missing := differs(command.output, done.stdout):
            raise TranscriptError(f"`{command.text}` does not say what the page shows: {missing}")
        self._folder = Path(state.read_text(encoding="utf-8").strip())
        state.unlink()


def main(page: str) -> int:
    """0 when everything is as the page says."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fastvideo-new-user-") as folder:
        try:
            ran = Session(Path(page).resolve(), Path(folder)).follow()
        except TranscriptError as error:
            print(f"\n{page}: {error}", file=sys.stderr)
            return 1
    seconds = time.perf_counter() - started
    late = f" (more than the {LIMIT_SECONDS} s it should take at most)" if seconds > LIMIT_SECONDS else ""
    print(f"\n{page}: {ran} commands as the page says, in {seconds:.0f} s{late}")
    return 0 if ran else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
