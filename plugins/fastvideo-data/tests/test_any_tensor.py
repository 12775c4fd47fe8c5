"""Tensors that nothing here knows by name: written by an encoder, read when a family asks for them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import OPTIONS, FakeEncoder, ids, sample_row, write_clip, write_file
from torch import Tensor

from fastvideo_core.errors import DataError
from fastvideo_data import schema
from fastvideo_data.data_set import DataSet
from fastvideo_data.preprocessing.run import preprocess

DTYPES = {"keyframe_latents": torch.bfloat16, "camera_poses": torch.float64, "mask": torch.bool, "score": torch.float16}


class KeyframeEncoder(FakeEncoder):
    """Gives tensors of its own beside the latents: 3-D, 2-D of any length, 1-D, and a number alone."""

    def describe(self) -> dict[str, str]:
        return {**super().describe(), "keyframe_latents_normalised": "true"}

    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        return [{**made, **tensors(float(made["vae_latent"].float().mean()))} for made in super().encode_videos(frames)]


def tensors(value: float) -> dict[str, Tensor]:
    """What belongs to a clip of this brightness."""
    made = {
        "keyframe_latents": torch.full((2, 3, 4), value),
        "camera_poses": torch.full((1 + int(value) % 3, 5), value),
        "mask": torch.tensor([True, False]),
        "score": torch.tensor(value),
    }
    return {name: tensor.to(DTYPES[name]) for name, tensor in made.items()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four clips of three videos, encoded."""
    (tmp_path / "clips").mkdir()
    for n in range(3):
        write_clip(tmp_path / "clips" / f"{n}.mp4", 5 + 4 * n, caption=f"clip {n}")
    preprocess(KeyframeEncoder(), tmp_path / "clips", tmp_path / "data", OPTIONS)
    return tmp_path / "data"


def test_tensors_of_any_name_come_back_as_they_were_given(data: Path) -> None:
    opened = DataSet(data, wanted=tuple(DTYPES), optional=("vae_latent",))
    assert set(opened.tensor_names) == {*DTYPES, "vae_latent"}
    seen = 0
    for batch in itertools.islice(loader := opened.loader(batch_size=1, seed=0), loader.batches_per_epoch):
        for name, expected in tensors(float(batch["vae_latent"].float().mean())).items():
            assert batch[name].dtype == DTYPES[name]
            assert torch.equal(batch[name][0], expected)
        assert batch["camera_poses_length"].tolist() == [batch["camera_poses"].shape[1]]
        seen += 1
    assert seen == opened.num_samples == 4


def test_they_are_not_read_when_nobody_asks_for_them(data: Path) -> None:
    opened = DataSet(data)
    assert opened.tensor_names == ("vae_latent", "text_embedding")
    assert not set(opened.examples()[0]) & set(DTYPES)
    stored = opened._folder.files[0].columns
    assert all(column in stored for name in DTYPES for column in schema.tensor_columns(name))


def test_normalisation_is_recorded_for_each_tensor(data: Path) -> None:
    opened = DataSet(data, wanted=("keyframe_latents", "mask", "vae_latent"))
    assert opened.normalised == {"vae_latent": False, "keyframe_latents": True}
    batch = opened.examples()[0]
    assert (batch["vae_latent_normalised"], batch["keyframe_latents_normalised"]) == (False, True)
    assert "mask_normalised" not in batch
    assert opened.unsaid_normalisation is None


def test_2d_tensors_are_padded_and_others_stacked(data: Path) -> None:
    batch = next(DataSet(data, wanted=("camera_poses", "keyframe_latents")).loader(batch_size=3, seed=0))
    lengths = batch["camera_poses_length"].tolist()
    assert batch["camera_poses"].shape == (3, max(lengths), 5)
    for poses, length in zip(batch["camera_poses"], lengths, strict=True):
        assert not poses[length:].any()
    assert batch["keyframe_latents"].shape == (3, 2, 3, 4)


@pytest.mark.parametrize("wrong", [{}, {"vae_latent": 1, "text_embedding": 1}, {"vae_latent": 1, "Depth": 1}])
def test_what_an_encoder_may_not_give_is_told_before_anything_is_written(tmp_path: Path, wrong: dict[str, int]) -> None:
    class Wrong(FakeEncoder):
        def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
            return [dict.fromkeys(wrong, torch.zeros(2, 2, 1, 1)) for _ in frames]

    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4", 5, caption="a")
    with pytest.raises(DataError, match=r"Wrong.encode_videos gives .* for a clip|no tensor can be called 'Depth'"):
        preprocess(Wrong(), tmp_path / "clips", tmp_path / "data", OPTIONS)
    assert not list((tmp_path / "data").glob("*.parquet"))


def row(number: int, array: np.ndarray | None) -> dict[str, object]:
    made = {"depth_bytes": b"", "depth_shape": [], "depth_dtype": ""}
    if array is not None:
        made = {"depth_bytes": array.tobytes(), "depth_shape": list(array.shape), "depth_dtype": str(array.dtype)}
    return sample_row(number) | made


def test_shapes_that_cannot_be_stacked_name_both_rows(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [row(n, np.zeros((1, 2, 2 + n), np.float32)) for n in range(2)])
    loader = DataSet(tmp_path, wanted=("depth",)).loader(batch_size=2, seed=0)
    with pytest.raises(
        DataError, match=r"a.parquet, row \d: depth has shape \[1, 2, \d\], but \[1, 2, \d\] in .*row \d"
    ):
        next(loader)


def test_asking_for_a_tensor_that_is_not_there_names_file_and_column(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0)])
    with pytest.raises(DataError) as caught:
        DataSet(tmp_path, wanted=("depth",))
    assert "a.parquet: holds no tensor depth (it has no column depth_bytes)" in str(caught.value)
    assert "fix: preprocess the samples again with an encoder that makes depth" in str(caught.value)
    assert DataSet(tmp_path, optional=("depth",)).tensor_names == ("vae_latent", "text_embedding")


def test_a_tensor_that_is_empty_in_every_row_is_absent(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [row(n, None) for n in range(3)])
    assert "depth" not in DataSet(tmp_path, optional=("depth",)).examples()[0]
    with pytest.raises(DataError, match=r"a.parquet: holds no tensor depth \(depth_bytes is empty in every row\)"):
        DataSet(tmp_path, wanted=("depth",))


def test_a_tensor_that_only_some_rows_or_files_have_is_an_error_for_who_asks(tmp_path: Path) -> None:
    depth = np.zeros((1, 2, 2), np.float32)
    write_file(tmp_path / "a.parquet", [row(0, depth), row(1, None)])
    with pytest.raises(DataError, match=r"a.parquet, row 1: depth is empty: the row has none"):
        DataSet(tmp_path, optional=("depth",))
    write_file(tmp_path / "a.parquet", [row(0, depth)])
    write_file(tmp_path / "b.parquet", [sample_row(1)])
    with pytest.raises(DataError, match=r"b.parquet: holds no tensor depth, but other files do"):
        DataSet(tmp_path, optional=("depth",))
    assert sorted(ids(next(DataSet(tmp_path).loader(batch_size=2, seed=0)))) == [0, 1]


def test_a_tensor_without_all_its_columns_is_an_error_for_who_asks(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [{k: v for k, v in row(0, np.zeros(2)).items() if k != "depth_dtype"}])
    DataSet(tmp_path)
    with pytest.raises(DataError, match=r"a.parquet: lacks the column\(s\) depth_dtype"):
        DataSet(tmp_path, optional=("depth",))


def test_files_that_disagree_on_the_normalisation_of_what_is_asked_for(tmp_path: Path) -> None:
    depth = np.zeros((1, 2, 2), np.float32)
    write_file(tmp_path / "a.parquet", [row(0, depth)], **{"fastvideo.latents_normalised": '{"depth": true}'})
    write_file(tmp_path / "b.parquet", [row(1, depth)])
    with pytest.raises(
        DataError, match=r"b.parquet: depth is not said to be normalised or not here, but normalised in"
    ):
        DataSet(tmp_path, wanted=("depth",))
    DataSet(tmp_path)


@pytest.mark.parametrize("name", ["Depth", "_depth", "9depth", "de-pth", "", "info", "depth_length", "x_normalised"])
def test_a_name_that_no_tensor_can_have_is_refused_by_writer_and_reader(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no tensor can be called"):
        schema.encode_tensor(name, torch.zeros(1))
    write_file(tmp_path / "a.parquet", [sample_row(0)])
    with pytest.raises(DataError, match="no tensor can be called"):
        DataSet(tmp_path, wanted=(name,))


def test_other_values_of_a_tensor_of_any_name_are_noticed_when_resuming(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [row(0, np.zeros((1, 8, 8), np.float32))])
    before = DataSet(tmp_path).loader(batch_size=1, seed=0).state_dict()
    write_file(tmp_path / "a.parquet", [row(0, np.ones((1, 8, 8), np.float32))])
    assert DataSet(tmp_path).loader(batch_size=1, seed=0).state_dict()["contents"] != before["contents"]
