"""What `train` prints besides errors: as much as was asked for, as text or as JSON objects a line."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fastvideo_core.errors.shown import without_secrets
from fastvideo_core.launch.stdio import FAILURES, PrintableFormatter, complain, say

if TYPE_CHECKING:
    from fastvideo_core.tracking.display import Display

logger = logging.getLogger(__name__)

Mode = Literal["normal", "quiet", "verbose", "json"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--quiet, --verbose and --json; at most one of them."""
    group = parser.add_mutually_exclusive_group()
    modes = {
        "quiet": "print warnings, errors and where the run is; nothing else",
        "verbose": "print every metric and debugging messages",
        "json": "print JSON objects, one a line, for programs",
    }
    for mode, meaning in modes.items():
        group.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=meaning)


@dataclass(frozen=True)
class Console:
    """Standard output takes what the run tells, standard error warnings and errors (with --json, all is on standard output).

    A run goes on when one of them fails. A process that does not `speaks`, as all but one of a run, prints errors only.
    """

    mode: Mode = "normal"
    speaks: bool = True

    def set_up_logging(self) -> None:
        """Log messages of all libraries go where the mode wants them."""
        level = logging.WARNING if self.mode == "quiet" else logging.INFO
        handler = _Handler(as_json=self.mode == "json")
        logging.basicConfig(level=level if self.speaks else logging.ERROR, handlers=[handler])
        if self.mode == "verbose" and self.speaks:  # of this project alone: torch's would bury it
            logging.getLogger("fastvideo_core").setLevel(logging.DEBUG)

    def display(self) -> Display:
        """How logged steps are shown."""
        from fastvideo_core.tracking.display import Display, JsonLines, LogLines, display_for

        if not self.speaks or self.mode == "quiet":
            return Display()
        if self.mode == "json":
            return JsonLines(sys.stdout)
        return LogLines(sys.stdout, every_metric=True) if self.mode == "verbose" else display_for(sys.stdout)

    def tell(self, event: str, title: str, facts: Mapping[str, Any], *, also_quiet: bool = False) -> None:
        """A title and facts below it, by name; with --json one object with plain values; with --quiet the title or nothing."""
        if not self.speaks or (self.mode == "quiet" and not also_quiet):
            return
        try:
            if self.mode == "json":
                print(json.dumps(without_secrets({"event": event, "title": title, **facts}), default=str), flush=True)
            else:
                for line in (title, *_lines({} if self.mode == "quiet" else facts)):
                    say(line, flush=True)
        except FAILURES as error:
            logger.error("standard output cannot be written (%s); the run goes on without it", error)


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        for number, line in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            yield f"  {name if number == 0 else '':<{width}}  {line}"


class _Handler(logging.Handler):
    """Log messages as JSON on standard output, or text on standard error beside a bar; what cannot be shown fails nobody."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self.setFormatter(PrintableFormatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            text = self.format(record)
        except Exception:  # as logging's own handlers: a message and arguments that do not fit may raise anything
            self.handleError(record)
            return
        try:
            if self._as_json:
                print(json.dumps({"event": "log", "level": record.levelname.lower(), "message": text}), flush=True)
            else:
                tqdm.write(text, file=sys.stderr)  # it draws a bar on the terminal again below the message
        except FAILURES:
            if self._as_json:
                complain(text)
