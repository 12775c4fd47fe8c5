"""Clips of many sizes: which one a video or an image gets, and the data set that they make."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_data import OPTIONS, FakeEncoder, write_clip

from fastvideo_core.config.training import DataSource
from fastvideo_core.errors import DataError
from fastvideo_data.data_set import DataSet
from fastvideo_data.data_sources import DataSources
from fastvideo_data.preprocessing import run
from fastvideo_data.preprocessing.buckets import Buckets, parse_area, parse_aspects, parse_frames, size_of
from fastvideo_data.preprocessing.clips import PreprocessOptions
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.video_sizes import VideoGeometry

WAN = VideoGeometry(frames_divisor=4, frames_remainder=1, size_multiple=16, fps=16.0)
BUCKETS = Buckets(areas=(24 * 24,), aspects=(0.5, 1.0, 2.0), frames=(1, 5, 9))
MANY = PreprocessOptions(clips="first", samples_per_file=3, batch_size=2, buckets=BUCKETS)


@pytest.mark.parametrize(
    ("aspect", "width", "height"),
    [
        *((16 / 9, 848, 480), (1.0, 624, 624), (9 / 16, 480, 848)),
        *((4 / 3, 736, 544), (0.5, 448, 896), (2.0, 896, 448)),
    ],
)
def test_sizes_of_an_area_in_several_aspect_ratios(aspect: float, width: int, height: int) -> None:
    area = parse_area("480x832")
    assert size_of(area, aspect, WAN) == (height, width)
    assert 0.975 <= height * width / area <= 1.0193
    thirty_two = size_of(area, aspect, replace(WAN, size_multiple=32))
    assert [side % 32 for side in thirty_two] == [0, 0]
    assert thirty_two == pytest.approx((height, width), abs=16)


def test_the_nearest_aspect_ratio_is_the_one_of_least_cropping() -> None:
    buckets = Buckets(areas=(32 * 64,), aspects=(0.5, 2.0), frames=(5,))
    for width, size in ((115, (32, 64)), (101, (32, 64)), (99, (64, 32))):  # by difference 1.15 is nearer to 0.5
        assert buckets.size_for((100, width), WAN) == size


def test_of_several_areas_the_largest_that_does_not_enlarge_much() -> None:
    buckets = Buckets(areas=(512 * 512, 64 * 64, 256 * 256), aspects=(1.0,), frames=(5,))
    for side, taken in ((2000, 512), (410, 512), (409, 256), (205, 256), (204, 64), (16, 64)):
        assert buckets.size_for((side, side), WAN) == (taken, taken)


def test_what_the_options_name() -> None:
    assert parse_aspects("0.5:2:7") == (0.5, 0.629961, 0.793701, 1.0, 1.259921, 1.587401, 2.0)
    assert parse_aspects("16:9,1:1,0.5") == (1.777778, 1.0, 0.5)
    assert parse_frames("1,33,81") == (1, 33, 81)
    assert Buckets((9, 4), (2.0, 1.0), (5, 1)) == Buckets((4, 9, 9), (1.0, 2.0), (1, 5))
    for wrong in ("2:0.5:7", "1:2:1", "1:2:3:4", "a", "nan", "0", "100:1", "0.5:2:1000", "1:2:x"):
        with pytest.raises(ValueError, match=r".*"):
            parse_aspects(wrong)
    for wrong in ("480", "0x5", "1x2x3", "axb"):
        with pytest.raises(ValueError, match=r".*"):
            parse_area(wrong)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Wide videos of 9, 8 and 4 frames, an upright one of 14, an image, and what is nothing."""
    root = tmp_path / "media"
    root.mkdir()
    for name, frames, size in (("a", 9, (20, 40)), ("b", 8, (20, 36)), ("c", 4, (20, 40)), ("d", 14, (40, 20))):
        write_clip(root / f"{name}.mp4", frames, size=size, caption=f"a ball {name}")
    Image.fromarray(np.full((30, 30, 3), 90, np.uint8)).save(root / "e.png")
    (root / "e.txt").write_text("an image")
    (root / "broken.mp4").write_bytes(b"no video")
    (root / "broken.txt").write_text("broken")
    return root


def folders(data: Path) -> dict[str, list[str]]:
    """Ids by the folder that they lie in."""
    found: dict[str, list[str]] = {}
    for path in sorted(data.rglob("*.parquet")):
        ids = [row["id"] for row in pq.read_table(path).to_pylist()]
        found.setdefault(path.parent.relative_to(data).as_posix(), []).extend(ids)
    return found


def rows(data: Path) -> dict[str, dict]:
    found = [row for path in sorted(data.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row for row in found}


def test_every_clip_goes_into_the_folder_of_its_size(media: Path, tmp_path: Path, capsys) -> None:
    report = preprocess(FakeEncoder(), media, tmp_path / "out", MANY)
    assert folders(tmp_path / "out") == {
        "16x32x1": ["c.mp4#0000"],
        "16x32x5": ["b.mp4#0000"],
        "16x32x9": ["a.mp4#0000"],
        "24x24x1": ["e.png#0000"],
        "32x16x9": ["d.mp4#0000"],
    }
    stored = rows(tmp_path / "out")
    facts = {id: [row[key] for key in ("height", "width", "num_frames")] for id, row in stored.items()}
    assert facts["b.mp4#0000"] == [16, 32, 2]
    assert facts["d.mp4#0000"] == [32, 16, 3]
    assert [stored["b.mp4#0000"][key] for key in ("media_type", "fps", "duration_sec")] == ["video", 16.0, 5 / 16]
    assert [stored["e.png#0000"][key] for key in ("media_type", "fps", "duration_sec")] == ["image", 0.0, 0.0]
    assert [skip.item for skip in report.skipped] == ["broken.mp4"]
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["buckets"] == dict.fromkeys(folders(tmp_path / "out"), 1)
    assert "by height x width x frames: 1 x 16x32x1, 1 x 16x32x5, " in capsys.readouterr().out


def test_videos_that_are_too_short_for_any_bucket_and_images_without_one_are_named(media: Path, tmp_path: Path) -> None:
    longer = replace(MANY, buckets=replace(BUCKETS, frames=(9, 5)))
    report = preprocess(FakeEncoder(), media, tmp_path / "out", longer)
    reasons = {skip.item: skip.reason for skip in report.skipped}
    assert reasons["c.mp4"] == "too short: 4 frames, but a clip needs 5 (--frames)"
    assert reasons["e.png"] == "is an image: a sample of one frame, which --num-frames 1 takes, or --frames 1,..."


def test_all_clips_are_the_longest_that_the_rest_gives_but_no_single_frames(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, frames in (("a", 18), ("b", 26), ("c", 3)):
        write_clip(tmp_path / "in" / f"{name}.mp4", frames, caption=name)
    report = preprocess(FakeEncoder(), tmp_path / "in", tmp_path / "out", replace(MANY, clips="all"))
    frames = {id: (row["num_frames"] - 1) * 4 + 1 for id, row in rows(tmp_path / "out").items()}
    first = {"a.mp4#0000": 9, "a.mp4#0001": 9, "b.mp4#0000": 9, "b.mp4#0001": 9}
    assert frames == {**first, "b.mp4#0002": 5, "c.mp4#0000": 1}
    assert report.unused_frames == {"b.mp4": 3, "c.mp4": 2}


def test_batches_have_one_size_and_wait_for_it_in_bounded_memory(media: Path, tmp_path: Path, monkeypatch) -> None:
    class Counting(FakeEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.batches: list[int] = []

        def encode_videos(self, frames):
            self.batches.append(len(frames))
            return super().encode_videos(frames)

    write_clip(media / "f.mp4", 9, size=(20, 40), caption="as large as a")
    encoder = Counting()
    preprocess(encoder, media, tmp_path / "out", MANY)
    assert encoder.batches == [2, 1, 1, 1, 1]
    monkeypatch.setattr(run, "_WAITING_BYTES", 0)
    alone = Counting()
    preprocess(alone, media, tmp_path / "alone", MANY)
    assert alone.batches == [1] * 6
    assert rows(tmp_path / "out") == rows(tmp_path / "alone")


def test_a_clip_that_was_lost_is_made_again_though_the_end_of_its_video_is_there(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "b.mp4", 26, caption="b")
    options = replace(MANY, clips="all", samples_per_file=1)
    out = tmp_path / "out"
    preprocess(FakeEncoder(), tmp_path / "in", out, options)
    whole = rows(out)
    (lost,) = [path for path in out.rglob("*.parquet") if pq.read_table(path).to_pylist()[0]["id"] == "b.mp4#0001"]
    lost.unlink()  # as if killed before it was written: the last clip, of another size, was already
    encoder = FakeEncoder()
    report = preprocess(encoder, tmp_path / "in", out, options)
    assert (report.samples, report.resumed, encoder.videos) == (3, 2, 1)
    assert rows(out) == whole
    assert preprocess(encoder, tmp_path / "in", out, options).resumed == 3
    assert encoder.videos == 1


def test_changes_of_the_source_are_followed_in_every_folder(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess(FakeEncoder(), media, out, MANY)
    (media / "a.txt").write_text("another ball")
    write_clip(media / "d.mp4", 5, size=(40, 20))
    (media / "e.png").unlink()
    (media / "e.txt").unlink()
    with pytest.raises(DataError, match=r"does not list, for example 'e.png'[\s\S]*--prune"):
        preprocess(FakeEncoder(), media, out, MANY)
    preprocess(FakeEncoder(), media, out, replace(MANY, prune=True))
    assert folders(out) == {
        "16x32x1": ["c.mp4#0000"],
        "16x32x5": ["b.mp4#0000"],
        "16x32x9": ["a.mp4#0000"],
        "32x16x5": ["d.mp4#0000"],
    }
    preprocess(FakeEncoder(), media, tmp_path / "new", MANY)
    assert rows(out) == rows(tmp_path / "new")


def test_a_folder_of_one_size_and_one_of_buckets_are_not_mixed(media: Path, tmp_path: Path) -> None:
    preprocess(FakeEncoder(), media, tmp_path / "many", MANY)
    preprocess(FakeEncoder(), media, tmp_path / "one", OPTIONS)
    with pytest.raises(DataError, match=r"many/16x32x1/part-000000.parquet: was written with other settings"):
        preprocess(FakeEncoder(), media, tmp_path / "many", OPTIONS)
    with pytest.raises(DataError, match=r"one/part-000000.parquet: was written with other settings: buckets was None"):
        preprocess(FakeEncoder(), media, tmp_path / "one", MANY)
    with pytest.raises(DataError, match=r"aspects': \[0.5, 1.0, 2.0\].*, is .*'aspects': \[1.0\]"):
        preprocess(FakeEncoder(), media, tmp_path / "many", replace(MANY, buckets=replace(BUCKETS, aspects=(1.0,))))


def test_sizes_that_the_model_does_not_encode_are_named_at_once(media: Path, tmp_path: Path) -> None:
    wrong = Buckets(areas=(10**10,), aspects=(1.0,), frames=(4, 6, 9))
    with pytest.raises(DataError) as caught:
        preprocess(FakeEncoder(), media, tmp_path / "out", replace(MANY, buckets=wrong))
    text = str(caught.value)
    for found in ("a bucket: height is 100000", "--frames: num_frames is 4", "use 1 or 5", "num_frames is 6"):
        assert found in text
    with pytest.raises(DataError, match="areas are"):
        preprocess(FakeEncoder(), media, tmp_path / "out", replace(MANY, buckets=Buckets((), (1.0,), (5,))))


def test_batches_of_a_bucketed_data_set_have_one_shape_on_every_rank(media: Path, tmp_path: Path) -> None:
    for number in range(7):
        write_clip(media / f"g{number}.mp4", (5, 9)[number % 2], size=(20, 40), caption=f"more of {number}")
    report = preprocess(Spatial(), media, tmp_path / "out", MANY)
    data = DataSet(tmp_path / "out")
    seen: Counter[str] = Counter()
    counts = []
    for rank in range(2):
        loader = data.loader(batch_size=2, seed=0, rank=rank, size=2)
        counts.append(loader.batches_per_epoch)
        for _ in range(loader.batches_per_epoch):
            batch = next(loader)
            assert len({(one["height"], one["width"], one["num_frames"]) for one in batch["info"]}) == 1
            height, width, frames = (batch["info"][0][key] for key in ("height", "width", "num_frames"))
            assert batch["vae_latent"].shape == (2, 3, frames, height // 8, width // 8)
            seen.update(one["id"] for one in batch["info"])
    assert counts[0] == counts[1]
    weighted = {"data_path": DataSource(path=str(tmp_path / "out"), weight=1.0)}
    ranks = [DataSources(weighted).loader(batch_size=2, seed=0, rank=rank, size=2) for rank in range(2)]
    for _ in range(12):
        assert len({next(rank)["vae_latent"].shape for rank in ranks}) == 1
    assert len(seen) == report.samples
    alone = DataSet(tmp_path / "out" / "16x32x9")  # for a loader that stacks rows without a look at them
    assert next(alone.loader(batch_size=4, seed=0))["vae_latent"].shape == (4, 3, 3, 2, 4)


class Spatial(FakeEncoder):
    """Latents are pixels, one of 8 x 8."""

    def encode_videos(self, frames):
        latents = frames[:, ::4, ::8, ::8].permute(0, 4, 1, 2, 3)
        return [{"vae_latent": one.float().contiguous()} for one in latents]
