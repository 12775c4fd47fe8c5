"""docs/what-to-expect.md: its plots are those that benchmarks/what_to_expect.py draws, of what runs log."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import what_to_expect

    return what_to_expect


@pytest.fixture
def runs(tmp_path, script) -> Path:
    """Logs of the runs that the page is about; each logs the number of its place in the list."""
    places = [*script.RUNS, *script.provoked_runs.GOOD[1:], *(f"demo-{name}/runs/student-4" for name in script.OTHERS)]
    names = re.findall(r'"((?:quality/)?[a-z_0-9/]+)"', (ROOT / "benchmarks/what_to_expect.py").read_text())
    for number, place in enumerate([*places, "demo-kd/runs/teacher"], start=1):
        (tmp_path / place).mkdir(parents=True)
        lines = [{"step": step} | dict.fromkeys([*names, "quality/drift"], number * step) for step in (1, 2)]
        (tmp_path / place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_the_page_shows_every_figure_and_no_other(script, runs):
    page = (ROOT / "docs/what-to-expect.md").read_text(encoding="utf-8")
    figures = script.figures(runs)
    assert sorted(re.findall(r"\(images/(expect-[a-z]+)\.svg\)", page)) == sorted(figures)
    assert {file.stem for file in (ROOT / "docs/images").glob("expect-*.svg")} == set(figures)
    for name, text in figures.items():
        titles = [chart.get("aria-label") for chart in ET.fromstring(text).findall(f"{SVG}svg")]
        committed = ET.parse(ROOT / f"docs/images/{name}.svg").getroot()
        assert [chart.get("aria-label") for chart in committed.findall(f"{SVG}svg")] == titles


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
