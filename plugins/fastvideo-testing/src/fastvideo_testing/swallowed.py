"""Errors that happen in an author's code and that nobody hears of, as `except Exception: pass` takes them."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_BROAD = ("Exception", "BaseException")


class ErrorsSeen:
    """The errors between `start` and `stop` in the functions of the files beside a class's own."""

    def __init__(self, owner: type) -> None:
        self._folder = str(Path(inspect.getfile(owner)).parent)
        self._seen: list[tuple[str, int, str]] = []
        self._former: Any = None

    def start(self) -> None:
        self._seen, self._former = [], sys.gettrace()
        sys.settrace(self._trace)

    def stop(self) -> None:
        sys.settrace(self._former)

    def hidden(self) -> list[str]:
        """Those of them that a broad handler took without a word, with their places; where the code ended well."""
        self.stop()
        return [f"{error} ({file}:{line})" for file, line, error in self._seen if _hidden(Path(file), line)]

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._folder):
            return None
        frame.f_trace_lines = False
        if event == "exception":
            error = f"{argument[0].__name__}: {argument[1]}"
            self._seen.append((frame.f_code.co_filename, frame.f_lineno, error))
        return self._trace


def _hidden(file: Path, line: int) -> bool:
    """Whether the innermost broad handler around a line does nothing with the error."""
    quiet = False
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):  # outer ones come first
        if isinstance(node, (ast.Try, ast.With)) and node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0):
            for said in _broad_handlers(node):
                quiet = not said
    return quiet


def _broad_handlers(node: ast.Try | ast.With) -> Iterator[bool]:
    """For each that takes any error: whether it raises or calls something, such as a logger."""
    if isinstance(node, ast.With):
        for item in node.items:
            call = item.context_expr
            if (
                isinstance(call, ast.Call)
                and ast.unparse(call.func).endswith("suppress")
                and any(ast.unparse(one) in _BROAD for one in call.args)
            ):
                yield False
        return
    for handler in node.handlers:
        names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        if any(name is None or ast.unparse(name) in _BROAD for name in names):
            yield any(isinstance(part, (ast.Raise, ast.Call)) for one in handler.body for part in ast.walk(one))
