"""The page of a simulated run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fastvideo_tools.pages.curves import curves
from fastvideo_tools.pages.html import heading, page, paragraph, raw_table, table
from fastvideo_tools.simulate.sweep import Choice
from fastvideo_tools.simulate.tables import GIB, assumptions, choices, summary, tables

SHOWN = 0.01
COLOURS = ("#2f6fde", "#7aa5ee", "#d9642c", "#2a9d5c")


def write_page(title: str, found: Mapping[str, Any], swept: Sequence[Choice], storage_gbs: float) -> str:
    """The whole document."""
    body = [f"<p>{'<br>'.join(escape(line) for line in summary(found))}</p>"]
    body += [paragraph(f"Note: {note}.") for note in found["notes"]]
    body += [heading("Where the memory goes"), _memory(found)]
    body += [heading("Where the time goes"), _time(found)]
    if len(found["scaling"]) > 1:
        body += [heading("On more GPUs"), '<div class="curves">', *_scaling(found["scaling"]), "</div>"]
    for one in tables(found):
        body += [heading(one.title), table(one.headings, one.rows, one.marked)]
    if swept:
        one = choices(swept)
        body += [heading(one.title), table(one.headings, one.rows, one.marked)]
    body += [heading("What this assumes"), *(paragraph(text, faint=True) for text in assumptions(found, storage_gbs))]
    return page(title, body)


def _memory(found: Mapping[str, Any]) -> str:
    memory = found["memory"]
    kinds = ("parameters", "optimizer")
    rows = [
        (f"{name}: {kind}", held[kind], COLOURS[number])
        for name, held in memory["roles"].items()
        for number, kind in enumerate(kinds)
        if held[kind]
    ]
    known = sum(size for _, size, _ in rows)
    rows += [("gradients, gathered weights, activations, averages, at the peak", memory["peak"] - known, COLOURS[2])]
    most = max(memory["usable"], memory["peak"])
    lines = [_bar(name, size, most, f"{size / GIB:.2f} GiB", colour) for name, size, colour in rows]
    lines.append(_bar("peak", memory["peak"], most, f"{memory['peak'] / GIB:.2f} GiB", COLOURS[3]))
    lines.append(_bar("usable", memory["usable"], most, f"{memory['usable'] / GIB:.2f} GiB", "#5a6675"))
    return raw_table(("", "", ""), lines)


def _time(found: Mapping[str, Any]) -> str:
    parts = [(one, part) for one in found["iterations"] for part in one["parts"]]
    most = max(part["compute"] * one["share"] for one, part in parts)
    shown = [(one, part) for one, part in parts if part["compute"] * one["share"] >= SHOWN * most]
    lines = []
    for one, part in shown:
        seconds = part["compute"] * one["share"]
        name = f"{part['role'] or 'all'}: {part['what']} (iterations that update {' and '.join(one['updates'])})"
        lines.append(_bar(name, seconds, most, f"{seconds:.3g} s", COLOURS[0]))
        if (sending := sum(sent["seconds"] for sent in part["collectives"]) * one["share"]) >= SHOWN * most:
            lines.append(_bar("sent besides", sending, most, f"{sending:.3g} s", COLOURS[2]))
    return raw_table((f"of the mean iteration, what takes {SHOWN:.0%} of the longest or more", "", ""), lines)


def _bar(name: str, value: float, most: float, text: str, colour: str) -> list[str]:
    width = f"calc({max(0.005, value / most):.4f} * min(24rem, 26vw))"
    bar = f'<div style="width:{width};height:.9rem;background:{colour}"></div>'
    return [escape(name), bar, text.replace(" ", "\N{NO-BREAK SPACE}")]


def _scaling(scaling: Sequence[Mapping[str, Any]]) -> list[str]:
    def line(key: str) -> list[tuple[float, float]]:
        return [(one["gpus"], one[key]) for one in scaling]

    base = scaling[0]
    ideal = [(one["gpus"], base["samples_per_second"] * one["gpus"] / base["gpus"]) for one in scaling]
    seconds = {"with overlap": line("overlapped"), "without": line("apart"), "sending": line("sending")}
    return [
        curves("samples per second", {"simulated": line("samples_per_second"), "ideal": ideal}, x_label="GPUs"),
        curves("seconds of an iteration", seconds, x_label="GPUs"),
        curves("efficiency", {"with overlap": line("efficiency"), "without": line("efficiency_apart")}, x_label="GPUs"),
    ]
