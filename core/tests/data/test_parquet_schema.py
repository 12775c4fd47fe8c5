from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch

from fastvideo_core.data import schema
from fastvideo_core.errors import DataError


@pytest.mark.parametrize("name", list(schema.DTYPES))
def test_every_dtype_comes_back_as_it_was(name: str) -> None:
    values = torch.tensor([[0.0, 1.0, 2.5], [3.0, 1.5, 0.25]]).to(schema.DTYPES[name])
    row = schema.encode_tensor("x", values)
    assert row["x_dtype"] == name
    back = schema.decode_tensor("x", row)
    assert back.dtype == schema.DTYPES[name]
    assert torch.equal(back, values)


def test_bfloat16_is_stored_as_its_raw_two_bytes() -> None:
    row = schema.encode_tensor("x", torch.tensor([1.0], dtype=torch.bfloat16))
    assert row == {"x_bytes": b"\x80\x3f", "x_shape": [1], "x_dtype": "bfloat16"}


def test_a_tensor_that_is_not_contiguous_is_stored_in_reading_order() -> None:
    values = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(schema.decode_tensor("x", schema.encode_tensor("x", values)), values)


def test_bytes_that_do_not_match_shape_and_dtype_are_an_error() -> None:
    row = {"x_bytes": b"\0" * 12, "x_shape": [2, 2], "x_dtype": "float32"}
    with pytest.raises(DataError, match=r"file, row 3: x_bytes holds 12 bytes, but shape \[2, 2\] of float32 needs 16"):
        schema.decode_tensor("x", row, where="file, row 3")


def test_a_dtype_without_a_name_in_the_schema_cannot_be_stored() -> None:
    with pytest.raises(DataError, match=r"x has dtype torch\.complex64"):
        schema.encode_tensor("x", torch.zeros(1, dtype=torch.complex64))


def test_columns_are_those_of_the_published_schema() -> None:
    assert schema.t2v_schema().names == [
        *("id", "vae_latent_bytes", "vae_latent_shape", "vae_latent_dtype"),
        *("text_embedding_bytes", "text_embedding_shape", "text_embedding_dtype"),
        *("file_name", "caption", "media_type", "width", "height", "num_frames", "duration_sec", "fps"),
    ]
    assert schema.text_schema().names == [
        *("id", "text_embedding_bytes", "text_embedding_shape", "text_embedding_dtype", "caption")
    ]


def test_a_part_file_carries_state_and_settings_and_leaves_nothing_aside(tmp_path) -> None:
    row = {"id": "a", "caption": "b", **schema.encode_tensor("text_embedding", torch.zeros(3, 4))}
    metadata = schema.key_value_metadata(normalised=True, settings={"height": 16}, videos={"a": 1})
    schema.write_part(tmp_path / "part.parquet", [row], schema.text_schema(), metadata)
    assert [path.name for path in tmp_path.iterdir()] == ["part.parquet"]
    stored = pq.read_metadata(tmp_path / "part.parquet").metadata
    assert schema.latents_normalised(stored, where="")
    assert stored[b"fastvideo.settings"] == b'{"height": 16}'
    assert stored[b"fastvideo.videos"] == b'{"a": 1}'


def test_rows_are_grouped_by_size(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(schema, "ROW_GROUP_BYTES", 100)
    tensor = schema.encode_tensor("text_embedding", torch.zeros(10))  # 40 bytes
    rows = [{"id": str(i), "caption": "", **tensor} for i in range(5)]
    schema.write_part(tmp_path / "part.parquet", rows, schema.text_schema(), {})
    footer = pq.read_metadata(tmp_path / "part.parquet")
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [2, 2, 1]


def test_absent_state_means_not_normalised_and_nonsense_is_an_error() -> None:
    assert not schema.latents_normalised(None, where="")
    assert not schema.latents_normalised({b"fastvideo.latents_normalised": b"false"}, where="")
    with pytest.raises(DataError, match=r"f: fastvideo\.latents_normalised is 'yes'"):
        schema.latents_normalised({b"fastvideo.latents_normalised": b"yes"}, where="f")
