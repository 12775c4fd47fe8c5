"""Data sets of other programs: other arrow types for the same thing are read, anything else is one message."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_data import ids, sample_row, write_file

from fastvideo_core.errors import DataError
from fastvideo_data.data_set import DataSet
from fastvideo_data.loading.loader import ParquetLoader
from fastvideo_data.loading.parquet_folder import ParquetFolder

PAYLOAD, SHAPE, DTYPE = "vae_latent_bytes", "vae_latent_shape", "vae_latent_dtype"
EMPTY = {"clip_feature_bytes": b"", "clip_feature_shape": [], "clip_feature_dtype": ""}
NULLS = dict.fromkeys(EMPTY)
VIEWS = [(PAYLOAD, pa.binary_view()), (DTYPE, pa.string_view())] if hasattr(pa, "binary_view") else []
"""Arrow 15 has none."""


def write_as(path: Path, rows: list[dict[str, Any]], column: str, kind: pa.DataType, group: int = 2) -> None:
    """Write rows with one column in another arrow type."""
    table = pa.Table.from_pylist(rows)
    values = table.column(column).to_pylist()
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and column == PAYLOAD:
        values = [list(value) for value in values]
    array = pa.array(values).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(values, kind)
    table = table.set_column(table.column_names.index(column), column, array)
    pq.write_table(table, path, row_group_size=group)


def read_all(path: Path, **options: Any) -> dict[int, torch.Tensor]:
    loader = DataSet(path).loader(**{"batch_size": 2, "seed": 0, **options})
    batches = list(itertools.islice(loader, loader.batches_per_epoch))
    loader.close()
    return {n: latent for batch in batches for n, latent in zip(ids(batch), batch["vae_latent"], strict=True)}


def error(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        DataSet(path).loader(batch_size=1, seed=0)
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        *[(PAYLOAD, pa.large_binary()), (PAYLOAD, pa.binary(64)), *VIEWS],
        *[(PAYLOAD, pa.dictionary(pa.int32(), pa.binary())), (PAYLOAD, pa.list_(pa.uint8()))],
        *[(PAYLOAD, pa.large_list(pa.uint8())), (PAYLOAD, pa.list_(pa.uint8(), 64))],
        *[(SHAPE, pa.list_(pa.float64())), (SHAPE, pa.list_(pa.int32())), (SHAPE, pa.large_list(pa.uint64()))],
        *[(SHAPE, pa.list_(pa.int64(), 4)), (DTYPE, pa.large_string())],
        *[(DTYPE, pa.dictionary(pa.int32(), pa.string())), ("caption", pa.large_string()), ("fps", pa.float32())],
    ],
    ids=str,
)
def test_other_types_of_the_same_thing_are_read(tmp_path: Path, column: str, kind: pa.DataType) -> None:
    write_as(tmp_path / "a.parquet", [sample_row(n) for n in range(5)], column, kind)
    assert pq.read_schema(tmp_path / "a.parquet").field(column).type == kind
    found = read_all(tmp_path)
    assert sorted(found) == list(range(5))
    assert all(torch.equal(latent, torch.full((2, 2, 2, 2), float(n))) for n, latent in found.items())


@pytest.mark.parametrize(
    ("column", "values", "kind", "allowed"),
    [
        (PAYLOAD, ["text"], "string", "binary, large_binary"),
        (PAYLOAD, [[1.0, 2.0]], "list<element: double>", "binary, large_binary"),
        (SHAPE, ["2,2"], "string", "a list of whole numbers"),
        (SHAPE, [[[2], [2]]], "list<element: list<element: int64>>", "a list of whole numbers"),
        (SHAPE, [{"h": 2}], "struct<h: int64>", "a list of whole numbers"),
        (DTYPE, [4], "int64", "string, large_string"),
        ("caption", [["a", "b"]], "list<element: string>", "string, large_string"),
        ("fps", ["16"], "string", "a type of integers or floats"),
    ],
)
def test_a_column_of_another_type_names_file_column_and_types(
    tmp_path: Path, column: str, values: list[Any], kind: str, allowed: str
) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0) | {column: values[0]}])
    text = error(tmp_path)
    assert f"a.parquet: column {column} has the type {kind}\n" in text
    assert f"allowed: {allowed}" in text


def test_all_wrong_columns_of_all_files_are_named_at_once(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0) | {PAYLOAD: "x", DTYPE: 1}])
    write_file(tmp_path / "b.parquet", [sample_row(1) | {SHAPE: "x"}])
    text = error(tmp_path)
    for part in (f"a.parquet: column {PAYLOAD}", f"a.parquet: column {DTYPE}", f"b.parquet: column {SHAPE}"):
        assert part in text


def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([sample_row(0)])
    pq.write_table(table.append_column("caption", table.column("caption")), tmp_path / "a.parquet")
    assert "a.parquet: has several columns caption" in error(tmp_path)


def test_columns_that_nobody_reads_may_be_of_any_type(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0) | {"pil_image_bytes": [1.5], "thumbnail": {"a": [1]}}])
    text = error(tmp_path)  # no shape and no dtype: that is still said
    assert "lacks the column(s) pil_image_shape, pil_image_dtype" in text
    images = {"pil_image_bytes": [1.5], "pil_image_shape": "?", "pil_image_dtype": 3}
    write_file(tmp_path / "a.parquet", [sample_row(0) | images])
    assert "pil_image" not in next(DataSet(tmp_path).loader(batch_size=1, seed=0))


def test_a_null_in_a_list_of_bytes_is_an_error(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0) | {PAYLOAD: None}])
    table = pq.read_table(tmp_path / "a.parquet").drop_columns([PAYLOAD])
    table = table.append_column(PAYLOAD, pa.array([[1] * 63 + [None]], pa.list_(pa.uint8())))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet, row group 0: .*a list of bytes has a null in it"):
        read_all(tmp_path, batch_size=1)


# --- tensors that are absent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [EMPTY, NULLS], ids=["empty", "null"])
def test_a_tensor_that_is_empty_everywhere_is_absent(tmp_path: Path, empty: dict[str, Any]) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(n) | empty for n in range(3)])
    write_file(tmp_path / "b.parquet", [sample_row(3)])
    loader = DataSet(tmp_path).loader(batch_size=4, seed=0)
    assert loader.tensor_names == ("vae_latent", "text_embedding")
    assert sorted(ids(next(loader))) == [0, 1, 2, 3]


def test_latents_that_are_empty_everywhere_are_absent(tmp_path: Path) -> None:
    empty = {PAYLOAD: b"", SHAPE: [], DTYPE: ""}
    write_file(tmp_path / "a.parquet", [sample_row(n) | empty for n in range(3)])
    assert DataSet(tmp_path).loader(batch_size=1, seed=0).tensor_names == ("text_embedding",)


@pytest.mark.parametrize("statistics", [True, False])
def test_a_tensor_that_only_some_rows_have_names_the_first_without(tmp_path: Path, statistics: bool) -> None:
    rows = [sample_row(n) | ({PAYLOAD: b"", SHAPE: [], DTYPE: ""} if n in (2, 4) else {}) for n in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", write_statistics=statistics)
    assert "a.parquet, row 2: vae_latent is empty: the row has none, as in 1 more of 6" in error(tmp_path)


def test_an_empty_text_embedding_is_an_error(tmp_path: Path) -> None:
    empty = {"text_embedding_bytes": b"", "text_embedding_shape": [], "text_embedding_dtype": ""}
    write_file(tmp_path / "a.parquet", [sample_row(0) | empty])
    assert "a.parquet, row 0: text_embedding is empty: the row has none" in error(tmp_path)


def test_bytes_without_shape_and_dtype_are_not_taken_for_absent(tmp_path: Path) -> None:
    rows = [sample_row(n) | {PAYLOAD: os.urandom(4096), SHAPE: [], DTYPE: ""} for n in range(2)]
    write_file(tmp_path / "a.parquet", rows)
    assert f"{PAYLOAD} holds bytes, but {SHAPE} and {DTYPE} are empty" in error(tmp_path)


# --- normalisation ----------------------------------------------------------------------------------------------------


def row_with_first_frame(number: int) -> dict[str, Any]:
    latent = np.full((2, 1, 2, 2), number, np.float32)
    extra = {"first_frame_latent_bytes": latent.tobytes(), "first_frame_latent_shape": list(latent.shape)}
    return sample_row(number) | extra | {"first_frame_latent_dtype": "float32"}


def test_fastvideo_s_first_frame_is_normalised_beside_a_latent_that_is_not(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [row_with_first_frame(0)])
    data = DataSet(tmp_path)
    batch = next(data.loader(batch_size=1, seed=0))
    assert (batch["vae_latent_normalised"], batch["first_frame_latent_normalised"]) == (False, True)
    assert data.unsaid_normalisation == tmp_path / "a.parquet"


def test_each_latent_has_its_own_flag(tmp_path: Path) -> None:
    flags = '{"vae_latent": true, "first_frame_latent": false}'
    write_file(tmp_path / "a.parquet", [row_with_first_frame(0)], **{"fastvideo.latents_normalised": flags})
    data = DataSet(tmp_path)
    batch = next(data.loader(batch_size=1, seed=0))
    assert (batch["vae_latent_normalised"], batch["first_frame_latent_normalised"]) == (True, False)
    assert data.unsaid_normalisation is None


def test_files_may_disagree_on_latents_that_nobody_reads(tmp_path: Path) -> None:
    for name, flag in (("a", "true"), ("b", "false")):
        flags = f'{{"vae_latent": false, "first_frame_latent": {flag}}}'
        metadata = {"fastvideo.latents_normalised": flags}
        write_file(tmp_path / f"{name}.parquet", [row_with_first_frame(0)], **metadata)
    assert "b.parquet: first_frame_latent is not normalised here, but normalised in" in error(tmp_path)
    DataSet(tmp_path, wanted=("text_embedding",), optional=("vae_latent",))


# --- repeated values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.binary(), pa.binary(4096), pa.dictionary(pa.int32(), pa.binary())], ids=str)
def test_values_that_are_stored_once_are_held_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType
) -> None:
    rows = [sample_row(n, shape=(4, 4, 8, 8)) for n in range(64)]
    for row in rows:
        row[PAYLOAD] = np.full((4, 4, 8, 8), int(row["id"][1:]) % 2, np.float32).tobytes()
    write_as(tmp_path / "a.parquet", rows, PAYLOAD, kind, group=64)
    pieces: list[int] = []
    real = ParquetFolder.payloads

    def watched(self: ParquetFolder, group: int, size: int = 0) -> Any:
        assert size > 64 * 4096
        for piece in real(self, group, size):
            pieces.append(piece.num_rows)
            yield piece

    monkeypatch.setattr(ParquetFolder, "payloads", watched)
    monkeypatch.setattr("fastvideo_data.loading.parquet_folder._WHOLE_BYTES", 0)
    monkeypatch.setattr("fastvideo_data.loading.parquet_folder._PIECE_BYTES", 8 * 4096)
    loader = DataSet(tmp_path).loader(batch_size=4, seed=0)
    batches = [next(loader)]
    waiting = {id(row.tensors["vae_latent"].data.base) for row in rows_in_flight(loader)}
    assert len(waiting) == 2, "the rows that wait for their batch share the two values"
    assert max(pieces) <= 8
    batches += itertools.islice(loader, 15)
    for batch in batches:
        for number, latent in zip(ids(batch), batch["vae_latent"], strict=True):
            assert torch.equal(latent, torch.full((4, 4, 8, 8), float(number % 2)))
        batch["vae_latent"].zero_()  # a consumer's own: never another row's
    loader.close()


def rows_in_flight(loader: ParquetLoader) -> list[Any]:
    frame: Any = loader._running._tickets.gi_frame.f_locals["tickets"].gi_frame
    results = {id(rows): rows for rows, _ in frame.f_locals["where"].values()}
    return [row for rows in results.values() for row in rows.result()._rows if row is not None]


# --- no damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [OSError(errno.EMFILE, "Too many open files"), MemoryError("no memory")], ids=repr)
def test_what_is_no_damage_is_neither_skipped_nor_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(n) for n in range(4)])
    loader = DataSet(tmp_path).loader(batch_size=2, seed=0, skip_bad_rows=True)

    def fails(*args: Any, **options: Any) -> Any:
        raise cause

    monkeypatch.setattr(pq, "ParquetFile", fails)
    with pytest.raises(DataError) as caught:
        next(loader)
    assert "copy the file again" not in str(caught.value)
    assert loader.take_skipped_rows() == 0


def test_too_many_open_files_at_the_start_name_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0)])

    def fails(*args: Any, **options: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(pq, "ParquetFile", fails)
    text = error(tmp_path)
    assert "ulimit -n" in text
    assert "copy the file again" not in text
