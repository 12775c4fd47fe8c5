"""Text tables that fit the terminal."""

import shutil
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

_GAP = "  "


def terminal_width() -> int:
    """Columns of the terminal, within what is pleasant to read; $COLUMNS overrides."""
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 160))


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Columns as wide as their content; when that is too wide, the widest ones wrap between words."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    narrowest = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    room = width - len(_GAP) * (len(header) - 1)
    while sum(widths) > room and (wrappable := [i for i in range(len(widths)) if widths[i] > narrowest[i]]):
        widths[max(wrappable, key=widths.__getitem__)] -= 1
    lines = []
    for row in (header, *rows):
        cells = [
            textwrap.wrap(cell, wide, break_long_words=False, break_on_hyphens=False) or [""]
            for cell, wide in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*cells, fillvalue=""):
            lines.append(_GAP.join(f"{part:<{wide}}" for part, wide in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)
