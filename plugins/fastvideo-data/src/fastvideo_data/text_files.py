"""Text that users write: read as UTF-8, and cut into lines where a line ends, not where a caption holds a separator."""

from __future__ import annotations

from pathlib import Path

from fastvideo_core.errors import DataError, Problem, foreign_file, printable

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_FIX = "save it as UTF-8"


def read_text(path: Path, *, bad_bytes: bool = False, any_newline: bool = True) -> str:
    r"""The text of a UTF-8 file, with or without a byte order mark.

    Args:
        path: the file.
        bad_bytes: take bytes that are no UTF-8 as lone surrogates, so that whoever reads line by line can tell which lines
            they are in (`not_utf8`).
        any_newline: \r\n and \r end a line, too: they become \n.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    with foreign_file(path, "text file"):
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DataError(Problem("is no file that can be read", str(path)))
        data = path.read_bytes()
    try:
        if data.startswith(_UTF16):
            raise DataError(Problem("is not UTF-8 text: it is UTF-16", str(path), fix=_FIX))
        text = data.decode("utf-8-sig", "surrogateescape" if bad_bytes else "strict")
    except UnicodeDecodeError as error:
        raise DataError(Problem(f"is not UTF-8 text: {error}", str(path), fix=_FIX)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if any_newline else text


def text_lines(text: str) -> list[str]:
    r"""The lines of a `read_text`, stripped, without the empty ones at the end.

    Only \n ends a line: `str.splitlines` also cuts at U+2028, U+0085, vertical tabs and form feeds, which captions hold.
    """
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def not_utf8(text: str) -> str:
    """Why a text cannot be stored as UTF-8; empty when it can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = text[error.start]
        byte = ord(found) - 0xDC00
        what = f"the byte {byte:#x}" if 0x80 <= byte <= 0xFF else f"half a surrogate pair, U+{ord(found):04X},"
        return f"is not UTF-8 text: {what} at position {error.start}"
    return ""


def shown(text: str, limit: int = 200) -> str:
    """A text of the user's inside a line of a message: on that line, and not endless."""
    clean = printable(text[:limit]).replace("\n", "\\n").replace("\t", "\\t")
    return clean if len(text) <= limit else f"{clean}..."
