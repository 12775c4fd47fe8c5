"""Masks of clips: found beside them or listed, read as their clips are, and stored on the grid of the latents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import OPTIONS, FakeEncoder, write_clip

from fastvideo_core.errors import DataError
from fastvideo_data.data_set import DataSet
from fastvideo_data.preprocessing.account import PreprocessReport
from fastvideo_data.preprocessing.masks import loss_mask
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.video_files import write_video


def run(folder: Path, source: str = "clips", **options: Any) -> PreprocessReport:
    return preprocess(FakeEncoder(), folder / source, folder / "data", replace(OPTIONS, **options))


def masks(folder: Path) -> dict[str, list[float]]:
    """`loss_mask` of every stored clip, whose latents are [3, T, 1, 1]."""
    data = DataSet(folder / "data", wanted=("vae_latent", "text_embedding", "loss_mask"))
    batches = [data.batch([row]) for row in range(data.num_samples)]
    assert all(batch["loss_mask"].dtype == torch.float16 for batch in batches)
    assert all(batch["loss_mask"].shape[1:] == (1, *batch["vae_latent"].shape[2:]) for batch in batches)
    return {batch["info"][0]["id"]: batch["loss_mask"].flatten().tolist() for batch in batches}


def write_mask(path: Path, *pictures: np.ndarray, fps: float = 16.0) -> None:
    frames = np.stack([np.repeat(picture[..., None], 3, axis=-1) for picture in pictures]).astype(np.uint8)
    if path.suffix == ".png":
        Image.fromarray(frames[0]).save(path)
    else:
        write_video(path, frames, fps)


BLACK, WHITE = np.zeros((16, 24)), np.full((16, 24), 255)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clips" / "a.mp4", 10, caption="a")
    write_clip(tmp_path / "clips" / "b.mp4", 5, caption="b")
    return tmp_path


def test_a_mask_is_averaged_over_what_each_latent_is_of() -> None:
    mask = np.random.default_rng(0).integers(0, 256, (9, 4, 6, 3), np.uint8)
    found = loss_mask(mask, torch.zeros(16, 3, 2, 3))
    assert (found.shape, found.dtype) == ((1, 3, 2, 3), torch.float16)
    grey = mask.mean(axis=-1) / 255
    for frame, group in enumerate((grey[:1], grey[1:5], grey[5:])):
        for y in range(2):
            for x in range(3):
                expected = group[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
                assert found[0, frame, y, x].item() == pytest.approx(expected, abs=1e-3)
    assert torch.equal(loss_mask(None, torch.zeros(16, 3, 2, 3)), torch.ones(1, 3, 2, 3).half())


def test_masks_lie_beside_their_clips_and_clips_without_one_count_everywhere(folder: Path) -> None:
    left = BLACK.copy()
    left[:, :12] = 255
    write_mask(folder / "clips" / "a.mask.png", left)
    report = run(folder)
    assert (report.samples, report.skipped) == (3, ())
    found = masks(folder)
    assert found["a.mp4#0000"] == found["a.mp4#0001"] == pytest.approx([0.5, 0.5], abs=0.01)
    assert found["b.mp4#0000"] == [1.0, 1.0]


def test_a_mask_is_cropped_and_timed_as_its_clip(folder: Path) -> None:
    edges = BLACK.copy()
    edges[:, :4] = edges[:, -4:] = 255  # 16 x 16 of the 16 x 24 pixels are left
    write_mask(folder / "clips" / "a.mask.mp4", *[edges] * 10)
    write_mask(folder / "clips" / "b.mask.mp4", WHITE, *[BLACK] * 4)
    assert [one.item for one in run(folder).noted] == ["a.mp4"]  # nothing of its mask is left, though some was white
    found = masks(folder)
    assert found["a.mp4#0000"] == pytest.approx([0, 0], abs=0.05)
    assert found["b.mp4#0000"] == pytest.approx([1, 0], abs=0.05)


def test_a_mask_of_another_frame_rate_is_resampled_like_a_clip(folder: Path) -> None:
    write_mask(folder / "clips" / "b.mask.mp4", WHITE, WHITE, BLACK, BLACK, BLACK, fps=8.0)
    run(folder)
    first, rest = masks(folder)["b.mp4#0000"]
    assert first == pytest.approx(1, abs=0.05)
    assert rest == pytest.approx(0.75, abs=0.05)  # nearest in time, of two the earlier one


def test_a_list_names_masks(folder: Path) -> None:
    (folder / "masks").mkdir()
    write_mask(folder / "masks" / "m.png", BLACK)
    rows = [{"video": "a.mp4", "caption": "a", "mask_path": "../masks/m.png"}, {"video": "b.mp4", "caption": "b"}]
    (folder / "clips" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = "black mask: 2 of 2 clips train nothing, as no place of them counts"
    for _ in range(2):  # again by a call that encodes nothing
        assert [(one.item, one.note) for one in run(folder).noted] == [("a.mp4", told)]
    assert masks(folder) == {"a.mp4#0000": [0, 0], "a.mp4#0001": [0, 0], "b.mp4#0000": [1, 1]}
    rows[0]["mask_path"] = "none.png"
    (folder / "clips" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "clips" / "b.mask.png").write_bytes((folder / "masks" / "m.png").read_bytes())
    again = preprocess(FakeEncoder(), folder / "clips", folder / "other", OPTIONS)
    assert [(one.item, one.reason) for one in again.skipped] == [("a.mp4", "the mask none.png is missing")]


def test_masks_that_do_not_fit_are_told(folder: Path) -> None:
    write_mask(folder / "clips" / "a.mask.mp4", WHITE)
    write_mask(folder / "clips" / "b.mask.png", np.zeros((16, 16)))
    write_clip(folder / "clips" / "c.mp4", 5, caption="c")
    for suffix in ("png", "mp4"):
        write_mask(folder / "clips" / f"c.mask.{suffix}", WHITE)
    write_mask(folder / "clips" / "lonely.mask.png", WHITE)
    with pytest.raises(DataError, match="not one usable sample"):
        run(folder)
    written = json.loads((folder / "data" / "report.json").read_text())
    reasons = {one["item"]: one["reason"] for one in written["skipped"]}
    assert reasons["a.mp4"] == "unreadable: the mask has fewer frames than its clip"
    assert reasons["b.mp4"] == "unreadable: the mask is 16 x 16 pixels, and its clip 24 x 16"
    assert reasons["c.mp4"] == "it has several masks: c.mask.mp4, c.mask.png"
    assert reasons["lonely.mask.png"] == "mask without a video"


def test_a_mask_that_changed_is_encoded_anew_and_so_is_one_that_came(folder: Path) -> None:
    write_mask(folder / "clips" / "a.mask.png", WHITE)
    run(folder)
    write_mask(folder / "clips" / "a.mask.png", BLACK)
    report = run(folder)
    told = [("a.mp4", one.note.split(":")[0]) for one in report.noted]
    assert told == [("a.mp4", "mask changed"), ("a.mp4", "black mask")]
    assert masks(folder)["a.mp4#0001"] == [0, 0]
    write_mask(folder / "clips" / "b.mask.png", BLACK)
    run(folder)
    assert masks(folder)["b.mp4#0000"] == [0, 0]
    (folder / "clips" / "a.mask.png").unlink()
    (folder / "clips" / "b.mask.png").unlink()
    with pytest.raises(DataError, match="masks was True, is None"):
        run(folder)
