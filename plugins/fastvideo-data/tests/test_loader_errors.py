from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_data import foreign_row, sample_row, write_file

from fastvideo_core.errors import DataError
from fastvideo_data.data_set import DataSet


def error_at_construction(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        DataSet(path).loader(batch_size=1, seed=0, **options)
    return str(caught.value)


def error_while_reading(path: Path, workers: int = 0, batch_size: int = 1) -> str:
    loader = DataSet(path).loader(batch_size=batch_size, seed=0, num_workers=workers)
    with pytest.raises(DataError) as caught:
        list(itertools.islice(loader, loader.batches_per_epoch))
    return str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: there is no such file or folder" in error_at_construction(tmp_path / "none")


def test_folder_without_parquet(tmp_path: Path) -> None:
    text = error_at_construction(tmp_path)
    assert f"{tmp_path}: there is no *.parquet file" in text
    assert "fastvideo-distill preprocess" in text


def test_folder_without_rows(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0)])
    pq.write_table(pq.read_table(tmp_path / "a.parquet").slice(0, 0), tmp_path / "a.parquet")
    assert f"{tmp_path}: its 1 parquet file(s) hold no rows at all" in error_at_construction(tmp_path)


def test_truncated_files_are_all_named_at_construction(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_file(tmp_path / f"{name}.parquet", [sample_row(n) for n in range(4)])
    for name in ("b", "c"):
        content = (tmp_path / f"{name}.parquet").read_bytes()
        (tmp_path / f"{name}.parquet").write_bytes(content[:-20])
    text = error_at_construction(tmp_path)
    for name in ("b", "c"):
        assert f"{tmp_path / name}.parquet: is no valid parquet file" in text
    assert "a.parquet" not in text


def test_something_else_with_the_name_of_a_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("hello, I am text and long enough for a footer")
    assert "a.parquet: is no valid parquet file" in error_at_construction(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_data_pages_name_the_row_group(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "a.parquet"
    write_file(path, [sample_row(n) for n in range(4)])
    column = next(
        column
        for i in range(pq.read_metadata(path).num_columns)
        if (column := pq.read_metadata(path).row_group(1).column(i)).path_in_schema == "vae_latent_bytes"
    )
    start = min(offset for offset in (column.data_page_offset, column.dictionary_page_offset) if offset)
    content = bytearray(path.read_bytes())
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    assert f"{path}, row group 1: " in error_while_reading(tmp_path, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_bytes_that_do_not_match_the_shape_name_file_and_row(tmp_path: Path, workers: int) -> None:
    rows = [sample_row(n) for n in range(6)]
    rows[3]["vae_latent_bytes"] = rows[3]["vae_latent_bytes"][:-4]
    write_file(tmp_path / "a.parquet", rows)
    text = error_while_reading(tmp_path, workers)
    where = f"{tmp_path / 'a.parquet'}, row 3"
    assert f"{where}: vae_latent_bytes holds 60 bytes, but shape [2, 2, 2, 2] of float32 needs 64" in text


def test_unknown_dtype(tmp_path: Path) -> None:
    rows = [sample_row(0), sample_row(1) | {"text_embedding_dtype": "float8"}]
    write_file(tmp_path / "a.parquet", rows)
    text = error_while_reading(tmp_path)
    assert "a.parquet, row 1: text_embedding_dtype is 'float8'" in text
    assert "bfloat16" in text


@pytest.mark.parametrize("column", ["text_embedding_bytes", "text_embedding_dtype", "vae_latent_bytes"])
def test_null_tensor(tmp_path: Path, column: str) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0), sample_row(1), sample_row(2) | {column: None}])
    assert f"a.parquet, row 2: {column} is null" in error_while_reading(tmp_path)


def test_null_latent_shape_is_found_at_construction(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0), sample_row(1) | {"vae_latent_shape": None}])
    assert "a.parquet, row 1: vae_latent_shape is null" in error_at_construction(tmp_path)


@pytest.mark.parametrize("column", ["vae_latent_dtype", "text_embedding_bytes", "text_embedding_shape"])
def test_missing_columns(tmp_path: Path, column: str) -> None:
    row = sample_row(0)
    del row[column]
    write_file(tmp_path / "a.parquet", [row])
    assert f"a.parquet: lacks the column(s) {column}" in error_at_construction(tmp_path)


def test_no_text_embedding_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [{"id": "x", "caption": "y"}])
    text = error_at_construction(tmp_path)
    assert "lacks the column(s) text_embedding_bytes, text_embedding_shape, text_embedding_dtype" in text


def test_files_that_disagree_on_tensors(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0)])
    write_file(tmp_path / "b.parquet", [{k: v for k, v in sample_row(1).items() if "vae" not in k}])
    assert "b.parquet: holds no tensor vae_latent, but other files do" in error_at_construction(tmp_path)


def test_files_that_disagree_on_normalisation(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0)])
    write_file(tmp_path / "b.parquet", [sample_row(1)], **{"fastvideo.latents_normalised": "true"})
    text = error_at_construction(tmp_path)
    assert "b.parquet: vae_latent is normalised here, but taken to be not normalised (the file does not say) in" in text


def test_embeddings_of_different_width_cannot_be_stacked(tmp_path: Path) -> None:
    latent = np.zeros((1, 1, 1, 1), np.float32)
    rows = [foreign_row(n, latent, np.zeros((2, 4 + n), np.float32)) for n in range(2)]
    write_file(tmp_path / "a.parquet", rows)
    text = error_while_reading(tmp_path, batch_size=2)
    assert "text_embedding has shape [2, " in text
    assert "keep such samples in separate folders" in text


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_cut_during_the_run_is_an_error(tmp_path: Path, workers: int) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(n) for n in range(40)], group=1)
    loader = DataSet(tmp_path).loader(batch_size=1, seed=0, num_workers=workers, window_bytes=1)
    next(loader)
    os.truncate(tmp_path / "a.parquet", 100)
    with pytest.raises(DataError, match=r"a.parquet, row group \d+: changed since the run started"):
        list(itertools.islice(loader, 39))


@pytest.mark.parametrize("cut", [False, True])
def test_a_file_that_ends_early_without_an_error_of_arrow_s_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """As older arrow does, when a file is cut between two reads."""
    write_file(tmp_path / "a.parquet", [sample_row(n) for n in range(4)], group=2)
    loader = DataSet(tmp_path).loader(batch_size=1, seed=0)
    real = pq.ParquetFile.iter_batches

    def ends_early(handle: pq.ParquetFile, *args: Any, **options: Any) -> Iterator[Any]:
        yield next(real(handle, *args, **options)).slice(0, 1)
        if cut:
            os.truncate(tmp_path / "a.parquet", 100)

    monkeypatch.setattr("fastvideo_data.loading.parquet_folder._WHOLE_BYTES", 0)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", ends_early)
    why = "changed since the run started" if cut else "is no valid row group: it holds 1 of its 2 rows"
    with pytest.raises(DataError, match=rf"a.parquet, row group \d: {why}"):
        list(itertools.islice(loader, 4))


def test_the_same_error_comes_again_when_asked_again(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0) | {"vae_latent_bytes": b""}])
    loader = DataSet(tmp_path).loader(batch_size=1, seed=0, num_workers=1)
    for _ in range(2):
        with pytest.raises(DataError, match=r"a.parquet, row 0: vae_latent_bytes holds 0 bytes"):
            next(loader)
