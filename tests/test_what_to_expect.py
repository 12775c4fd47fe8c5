"""docs/what-to-expect.md: its plots are those that benchmarks/what_to_expect.py draws, of what runs log."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    import what_to_expect

    return what_to_expect


def titles(svg: str) -> list[str]:
    """Of the charts of a figure."""
    return [chart.get("aria-label", "") for chart in ET.fromstring(svg).findall(f"{SVG}svg")]


def test_the_page_shows_every_figure_as_the_script_draws_it_and_no_other(script, tmp_path):
    shown = {file.stem: titles(file.read_text()) for file in DOCS.glob("images/expect-*.svg")}
    metrics = {title.rpartition(": ")[2] for charts in shown.values() for title in charts}
    demos = [f"demo-{name}/runs/student-4" for name in script.OTHERS]
    for place in [*script.RUNS, *script.provoked_runs.GOOD[1:], *demos, "demo-dmd2/runs/teacher"]:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "metrics.jsonl").write_text(json.dumps({"step": 1} | dict.fromkeys(metrics, 1.0)) + "\n")
    assert {name: titles(svg) for name, svg in script.figures(tmp_path).items()} == shown
    page = (DOCS / "what-to-expect.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\(images/(expect-[a-z]+)\.svg\)", page)) == sorted(shown)


def test_a_figure_places_its_charts_beside_and_below_each_other(script):
    root = ET.fromstring(script.figure([script.chart({"a": [{"step": 1, "x": 1.0}]}, "x")] * 3))
    places = [(float(chart.get("x")), float(chart.get("y"))) for chart in root.findall(f"{SVG}svg")]
    assert places == [(0, 0), (script.WIDTH, 0), (0, script.HEIGHT)]
    assert root.get("viewBox") == f"0 0 {2 * script.WIDTH} {2 * script.HEIGHT}"


def test_a_chart_has_a_curve_of_every_run_that_logs_it(script):
    logs = {"a": [{"step": 1, "x": 1.0}, {"step": 3, "x": 2.0}, {"step": 4}], "b": [{"step": 1, "y": 1.0}]}
    assert script.points(logs["a"], "x", 0.0) == [(1, 1.0), (3, 2.0)]
    root = ET.fromstring(script.chart(logs, "x"))
    assert len(root.findall(".//polyline")) == 1
    assert "a" in [text.text for text in root.findall(".//text")]
