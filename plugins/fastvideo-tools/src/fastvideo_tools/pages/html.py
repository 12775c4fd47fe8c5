"""A page as one string, and the tables and blocks on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fastvideo_core.errors import FastVideoError, Problem

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --faint: #6b7686; --line: #d8dde5; --back: #fff; --mark: #eef4ff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --faint: #97a2b2; --line: #39424f; --back: #14181f; --mark: #1d2a3f; }
}
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--back); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: middle;
  overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; } th { color: var(--faint); font-weight: 600; }
tr.marked td { background: var(--mark); font-weight: 600; }
.wide { overflow-x: auto; } .faint { color: var(--faint); }
pre { background: var(--mark); padding: .7rem 1rem; overflow-x: auto; font-size: 13px; }
video, img.clip { width: 96px; height: 96px; image-rendering: pixelated; display: block; margin: auto; }
svg { max-width: 100%; height: auto; } .curves { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
.curves > * { min-width: 0; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .7rem; } h1 { font-size: 1.3rem; } svg { width: 100%; } svg text { font-size: 12px; }
}
"""


def page(title: str, body: Iterable[str], script: str = "") -> str:
    """A whole HTML document; `body` is HTML already, `script` runs at its end."""
    parts = "\n".join(body)
    code = f"<script>{script}</script>" if script else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{parts}\n{code}</body></html>\n"
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], marked: Iterable[int] = ()) -> str:
    """A table of plain texts; `marked` are the numbers of the rows that stand out."""
    return raw_table(headings, [[escape(cell) for cell in row] for row in rows], marked)


def raw_table(headings: Sequence[str], rows: Iterable[Sequence[str]], marked: Iterable[int] = ()) -> str:
    """A table whose cells are HTML already."""
    stands_out = set(marked)
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = []
    for number, row in enumerate(rows):
        mark = ' class="marked"' if number in stands_out else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(lines) + "</table></div>"


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, *, faint: bool = False) -> str:
    look = ' class="faint"' if faint else ""
    return f"<p{look}>{escape(text)}</p>"


def folded(summary: str, text: str) -> str:
    """Preformatted text behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def save(path: Path, page: str) -> None:
    """The whole page in place of the one before.

    Raises:
        FastVideoError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".tmp")
        aside.write_bytes(page.encode("utf-8", "replace"))  # names of files may be no text
        aside.replace(path)
    except OSError as error:
        fix = "free space or make the folder writable, or name another file"
        raise FastVideoError(Problem(f"cannot be written: {error.strerror}", str(path), fix=fix)) from error
