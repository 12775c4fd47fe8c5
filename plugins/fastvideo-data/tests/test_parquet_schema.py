from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch

from fastvideo_core.errors import DataError
from fastvideo_data import schema


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
    assert schema.normalised_latents(stored, where="") == (dict.fromkeys(schema.LATENTS, True), True)
    assert stored[b"fastvideo.settings"] == b'{"height": 16}'
    assert stored[b"fastvideo.videos"] == b'{"a": 1}'


def test_rows_are_grouped_by_size(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(schema, "ROW_GROUP_BYTES", 100)
    tensor = schema.encode_tensor("text_embedding", torch.zeros(10))  # 40 bytes
    rows = [{"id": str(i), "caption": "", **tensor} for i in range(5)]
    schema.write_part(tmp_path / "part.parquet", rows, schema.text_schema(), {})
    footer = pq.read_metadata(tmp_path / "part.parquet")
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [2, 2, 1]


def test_one_flag_for_all_latents_means_what_it_meant() -> None:
    for value, state in ((b"true", True), (b"false", False)):
        stored = {b"fastvideo.latents_normalised": value}
        assert schema.normalised_latents(stored, where="") == (dict.fromkeys(schema.LATENTS, state), True)


def test_latents_without_a_flag_are_as_fastvideo_writes_them() -> None:
    found, said = schema.normalised_latents(None, where="")
    assert not said
    assert found == {
        "vae_latent": False,
        "audio_latent": False,
        "first_frame_latent": True,
        "trajectory_latents": True,
    }


def test_a_flag_for_each_tensor_comes_back() -> None:
    states = {"vae_latent": False, "first_frame_latent": True, "audio_latent": True, "trajectory_latents": False}
    assert schema.normalised_latents(schema.key_value_metadata(normalised=states, settings={}), where="") == (
        states,
        True,
    )


@pytest.mark.parametrize("value", [b"yes", b"1", b"null", b"[true]", b'{"vae_latent": 1}', b"\xff", b"[" * 100_000])
def test_a_flag_that_makes_no_sense_is_an_error(value: bytes) -> None:
    with pytest.raises(DataError, match=r"f: fastvideo\.latents_normalised is '"):
        schema.normalised_latents({b"fastvideo.latents_normalised": value}, where="f")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *[
            ("torch.float32", "float32"),
            ("torch.bfloat16", "bfloat16"),
            ("torch.half", "float16"),
            ("torch.long", "int64"),
        ],
        *[("<f4", "float32"), ("f2", "float16"), ("|u1", "uint8"), ("?", "bool"), ("=i8", "int64"), ("|b1", "bool")],
        *[("half", "float16"), ("single", "float32"), ("double", "float64"), ("numpy.float32", "float32")],
        *[("np.int16", "int16"), ("bool_", "bool"), ("float32", "float32"), ("torch.float", "float32")],
    ],
)
def test_names_of_torch_and_numpy_mean_what_they_say(text: str, name: str) -> None:
    assert schema.dtype_name(text) == name


@pytest.mark.parametrize(
    "text", [">f4", "O", "U4", "complex64", "torch.float8_e4m3fn", "torch.nn", "f4,f4", "(2,)f4", ""]
)
def test_other_names_are_no_dtype(text: str) -> None:
    assert schema.dtype_name(text) is None


def test_the_bytes_tell_whether_float_and_int_are_torch_s_or_numpy_s() -> None:
    for text, torch_s, numpy_s in (("float", torch.float32, torch.float64), ("int", torch.int32, torch.int64)):
        for dtype in (torch_s, numpy_s):
            row = schema.encode_tensor("x", torch.tensor([[1, 2, 3]]).to(dtype)) | {"x_dtype": text}
            assert torch.equal(schema.decode_tensor("x", row), torch.tensor([[1, 2, 3]]).to(dtype))


@pytest.mark.parametrize("shape", [[2.0, 3.0], (2, 3)])
def test_whole_numbers_of_any_type_are_a_shape(shape) -> None:
    row = schema.encode_tensor("x", torch.zeros(2, 3)) | {"x_shape": shape}
    assert schema.decode_tensor("x", row).shape == (2, 3)


@pytest.mark.parametrize("shape", [[2.5, 2.4], [float("nan"), 6.0], [float("inf")]])
def test_a_shape_of_other_numbers_is_an_error(shape) -> None:
    row = schema.encode_tensor("x", torch.zeros(2, 3)) | {"x_shape": shape}
    with pytest.raises(DataError, match=r"x_shape is \[.*\]\n +allowed: whole numbers"):
        schema.decode_tensor("x", row)
