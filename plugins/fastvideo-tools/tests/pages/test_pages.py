from __future__ import annotations

import base64
import io
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from fastvideo_data.video_files import write_video
from fastvideo_tools.pages.clips import FALL_BACK, clip
from fastvideo_tools.pages.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Marks,
    curves,
    key,
    powers,
    smoothed,
    ticks,
)
from fastvideo_tools.pages.html import folded, heading, page, paragraph, table


def test_a_page_is_one_document_that_fetches_nothing():
    document = page("a < b", [heading("h"), paragraph("x & y"), folded("run.yaml", "k: <v>")], script="let a = 1")
    assert "<title>a &lt; b</title>" in document
    assert "x &amp; y" in document
    assert "k: &lt;v&gt;" in document
    assert "<script>let a = 1</script>" in document
    assert not re.search(r'(src|href)="(?!data:)', document)


def test_a_table_marks_rows_and_escapes_cells():
    root = ET.fromstring(table(("name", "value"), [("<a>", "1"), ("b", "2")], marked=[1]))
    rows = root.findall(".//tr")
    assert [cell.text for cell in rows[1]] == ["<a>", "1"]
    assert [row.get("class") for row in rows] == [None, None, "marked"]


def test_curves_are_wellformed_and_stay_inside_the_picture():
    svg = curves("loss <1>", {"a": [(0, 3.0), (10, 1.0), (20, float("nan")), (30, 2.0)], "b": [(0, 0.5), (30, 9.0)]})
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    lines = root.findall(".//polyline")
    assert len(lines) == 2
    assert len(lines[0].get("points").split()) == 3  # the point that is not a number is left out
    for line in lines:
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_larger_values_are_drawn_higher():
    (line,) = ET.fromstring(curves("c", {"a": [(0, 1.0), (1, 2.0)]})).findall(".//polyline")
    (_, low), (_, high) = (tuple(map(float, point.split(","))) for point in line.get("points").split())
    assert high < low


def test_marks_stand_where_their_steps_are_on_the_axis():
    """A curve from 0 to 10 over the whole width: step 5 is in its middle, and a mark at 20 makes the axis as long again."""
    marks = [
        Marks("skipped", [5], "red", tall=True),
        Marks("validations", [0], "blue"),
        Marks("checkpoints", [0, 10, 10], "green"),
        Marks("alarms", [], "red", tall=True),
    ]
    svg = ET.fromstring(curves("c", {"a": [(0, 1.0), (10, 2.0)]}, marks=marks))
    skipped, validations, checkpoints = svg.findall(".//path")
    assert skipped.get("d") == f"M{(LEFT + WIDTH - RIGHT) / 2:.1f},{TOP}v{HEIGHT - BOTTOM - TOP}"
    assert skipped.get("stroke") == "red"
    assert skipped.find("title").text == "skipped"
    base = HEIGHT - BOTTOM
    assert validations.get("d") == f"M{LEFT:.1f},{base + 1}v5"
    assert checkpoints.get("d") == f"M{LEFT:.1f},{base + 7}v5 M{WIDTH - RIGHT:.1f},{base + 7}v5"
    (line,) = svg.findall(".//polyline")
    assert line.get("points").split()[-1] == f"{WIDTH - RIGHT:.1f},{TOP:.1f}"

    longer = ET.fromstring(curves("c", {"a": [(0, 1.0), (10, 2.0)]}, marks=[Marks("alarms", [20], "red")]))
    (line,) = longer.findall(".//polyline")
    assert line.get("points").split()[-1] == f"{(LEFT + WIDTH - RIGHT) / 2:.1f},{TOP:.1f}"


def test_the_key_names_the_marks_that_there_are():
    shown = key(
        [Marks("skipped <steps>", [5], "red", tall=True), Marks("checkpoints", [1], "green"), Marks("none", [], "blue")]
    )
    assert re.sub("<[^>]*>", "", shown) == "On the time axis: | skipped &lt;steps&gt;, &#9646; checkpoints."
    assert key([Marks("none", [], "blue")]) == ""


def test_one_point_is_a_dot():
    assert len(ET.fromstring(curves("c", {"a": [(1, 2.0)]})).findall(".//circle")) == 1


def test_names_in_the_legend_do_not_lie_on_each_other():
    names = ["critic_loss", "discriminator_fake_loss", "discriminator_real_loss", "student_loss", "generator_loss"]
    svg = ET.fromstring(curves("loss", {name: [(0, 1.0), (1, 2.0)] for name in names}))
    *_, height = map(float, svg.get("viewBox").split())
    texts = {text.text: text for text in svg.findall(".//text")}
    ends: dict[str, float] = {}
    for name in names:
        x, row = float(texts[name].get("x")), texts[name].get("y")
        assert x >= ends.get(row, 0)
        assert HEIGHT < float(row) < height
        ends[row] = x + 6 * len(name)
        assert ends[row] <= WIDTH


def test_a_chart_of_nothing_says_so():
    assert "nothing was logged" in curves("empty", {"a": []})


def test_ticks_are_round_numbers_that_cover_the_range():
    assert ticks(0.13, 0.87) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(5, 5)[0] < 5 < ticks(5, 5)[-1]


def test_a_logarithmic_axis_puts_equal_ratios_at_equal_distances():
    svg = ET.fromstring(curves("c", {"a": [(0, 0.01), (1, 0.1), (2, 1.0), (3, 0.0), (4, -1.0)]}, log=True))
    (line,) = svg.findall(".//polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points").split()]
    assert heights == pytest.approx([HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2, TOP], abs=0.06)
    assert {"0.01", "0.1", "1"} <= {text.text for text in svg.findall(".//text")}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.3, 34, [0.2, 0.5, 1, 2, 5, 10, 20, 50]), (1e-3, 5, [1e-3, 1e-2, 0.1, 1, 10]), (3, 3, [2, 5]), (2, 2, [2, 5])],
)
def test_marks_of_a_logarithmic_axis_are_round(low, high, expected):
    assert [10**one for one in powers(math.log10(low), math.log10(high))] == pytest.approx(expected)


def test_a_smoothed_constant_is_that_constant_from_its_first_point():
    assert [y for _, y in smoothed([(0, 2.0), (1, 2.0), (2, 2.0)], 0.9)] == pytest.approx([2.0, 2.0, 2.0])


def test_a_clip_carries_its_own_video_poster_and_fall_back(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, 16)
    element = clip(tmp_path / "a.mp4", 'a "red" circle')
    assert 'title="a &quot;red&quot; circle"' in element
    found = dict(re.findall(r"data:([\w/]+);base64,([\w+/=]+)", element))
    assert base64.b64decode(found["video/mp4"]) == (tmp_path / "a.mp4").read_bytes()
    webp = Image.open(io.BytesIO(base64.b64decode(found["image/webp"])))
    assert (webp.n_frames, webp.size) == (9, (32, 32))
    assert Image.open(io.BytesIO(base64.b64decode(found["image/png"]))).size == (32, 32)
    assert "data-webp" in element
    assert "dataset.webp" in FALL_BACK
