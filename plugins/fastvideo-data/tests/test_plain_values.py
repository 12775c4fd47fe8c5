"""Values that lie in their file as they are get straight to their batches; whatever else there is, pyarrow reads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_data import foreign_row, ids, sample_row

from fastvideo_core.errors import DataError
from fastvideo_data import schema
from fastvideo_data.data_set import DataSet
from fastvideo_data.loading import parquet_folder, plain_values
from fastvideo_data.loading.parquet_folder import ParquetFolder

PLAIN: dict[str, Any] = {"compression": "NONE", "use_dictionary": False, "row_group_size": 8}
BATCHES = 9
LATENT, TEXT = "vae_latent_bytes", "text_embedding_bytes"


def some_rows(count: int) -> list[dict[str, Any]]:
    """Rows of noise: latents of two shapes and texts of three lengths."""
    rng = np.random.default_rng(0)
    shapes = [(2, 3, 4, 4), (2, 1, 4, 8)]
    latents = [rng.standard_normal(shapes[n // 8 % 2]).astype(np.float32) for n in range(count)]
    return [foreign_row(n, latents[n], rng.standard_normal((1 + n % 3, 4)).astype(np.float16)) for n in range(count)]


def write(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **{**PLAIN, **options})
    return path


def batches(path: Path, count: int = BATCHES, **options: Any) -> list[dict[str, Any]]:
    loader = DataSet(path).loader(**{"batch_size": 3, "seed": 0, "window_bytes": 4000, **options})
    found = list(itertools.islice(loader, count))
    loader.close()
    return found


def same(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> bool:
    """Whether batches are equal to the bit, those of floats too."""
    one, other = ([torch.utils._pytree.tree_map(content, batch) for batch in some] for some in (a, b))
    return one == other


def content(leaf: object) -> object:
    return (leaf.shape, leaf.dtype, schema.bytes_of(leaf).tobytes()) if isinstance(leaf, torch.Tensor) else leaf


def by_pyarrow(path: Path, **options: Any) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParquetFolder, "read_straight", lambda *_: False)
        return batches(path, **options)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Who read each row group: "file" or "pyarrow"."""
    who: list[str] = []
    straight, payloads = ParquetFolder.read_straight, ParquetFolder.payloads

    def tried(self: ParquetFolder, *args: Any) -> bool:
        done = straight(self, *args)
        who.extend(["file"] * done)
        return done

    monkeypatch.setattr(ParquetFolder, "read_straight", tried)
    monkeypatch.setattr(ParquetFolder, "payloads", lambda *args: (who.append("pyarrow"), payloads(*args))[1])
    return who


def required(path: Path) -> None:
    """The file again, with columns that cannot be null."""
    table = pq.read_table(path)
    pq.write_table(table.cast(pa.schema([field.with_nullable(False) for field in table.schema])), path, **PLAIN)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pages", [1, 200, 1 << 20], ids=["pages of a value", "pages of some", "one page"])
def test_batches_are_those_that_pyarrow_gives_to_the_bit(
    tmp_path: Path, read: list[str], pages: int, workers: int
) -> None:
    path = write(tmp_path / "a.parquet", some_rows(50), data_page_size=pages, write_batch_size=1)
    found = batches(path, num_workers=workers, batch_size=4)
    assert set(read) == {"file"}
    assert same(found, by_pyarrow(path, batch_size=4))
    assert len({tuple(batch["vae_latent"].shape) for batch in found}) == 2


def test_files_of_preprocess_are_read_straight(tmp_path: Path, read: list[str]) -> None:
    names = schema.t2v_schema().names
    rows = [{name: value for name, value in row.items() if name in names} for row in some_rows(50)]
    path = tmp_path / "a.parquet"
    schema.write_part(path, rows, schema.t2v_schema(), schema.key_value_metadata(normalised=False, settings={}))
    found = batches(path)
    assert set(read) == {"file"}
    assert same(found, by_pyarrow(path))


def test_columns_without_nulls_by_their_type_are_read_straight(tmp_path: Path, read: list[str]) -> None:
    required(write(tmp_path / "a.parquet", some_rows(50)))
    found = batches(tmp_path / "a.parquet")
    assert set(read) == {"file"}
    assert same(found, by_pyarrow(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "SNAPPY"},
        {"use_dictionary": True},
        {"data_page_version": "2.0"},
        {"use_dictionary": False, "column_encoding": {LATENT: "DELTA_LENGTH_BYTE_ARRAY"}},
    ],
    ids=["compressed", "dictionary", "pages of version 2", "another encoding"],
)
def test_what_does_not_lie_there_as_it_is_pyarrow_reads(
    tmp_path: Path, read: list[str], options: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.parquet", some_rows(50), **options)
    found = batches(path)
    assert set(read) == {"pyarrow"}
    assert same(found, by_pyarrow(path))


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [sample_row(n, shape=(4, 1, 32, 64)) for n in range(8)]  # 32 KiB: more than is read to no use
    data = DataSet(write(tmp_path / "a.parquet", rows))
    sizes: list[int] = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: (sizes.append(size := real(*args)), size)[1])
    batch = data.batch([6, 1, 6])
    assert ids(batch) == [6, 1, 6]
    assert batch["vae_latent"].flatten(1).mean(1).tolist() == [6.0, 1.0, 6.0]
    assert sum(sizes) < 4 * (32 << 10)


def test_many_values_are_read_with_few_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [sample_row(n) for n in range(900)], row_group_size=900)
    calls: list[int] = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, parts, at: (calls.append(len(parts)), real(file, parts, at))[1])
    found = batches(path, count=300)
    assert sorted(itertools.chain.from_iterable(map(ids, found))) == list(range(900))
    assert all(batch["vae_latent"][:, 0, 0, 0, 0].tolist() == ids(batch) for batch in found)
    assert len(calls) == 6
    assert max(calls) <= 1024


@pytest.mark.parametrize("column", [LATENT, TEXT])
@pytest.mark.parametrize("skip", [False, True])
def test_damage_is_told_as_pyarrow_tells_it(tmp_path: Path, column: str, skip: bool) -> None:
    """A length is made larger: the sum of the sizes in the page still is what the page's header says."""
    path = write(tmp_path / "a.parquet", [sample_row(n, shape=(2, 2, 4, 4)) for n in range(8)])
    number = pq.read_metadata(path).schema.names.index(column)
    start = pq.read_metadata(path).row_group(0).column(number).data_page_offset
    whole = bytearray(path.read_bytes())
    length = len(sample_row(3, shape=(2, 2, 4, 4))[column])
    at = whole.index(length.to_bytes(4, "little") + sample_row(3, shape=(2, 2, 4, 4))[column][:4], start)
    whole[at] += 4
    path.write_bytes(whole)
    told = []
    for read in (batches, by_pyarrow):
        with pytest.raises(DataError) as error:
            read(path, skip_bad_rows=skip)
        told.append(str(error.value))
    assert told[0] == told[1]
    assert str(path) in told[0]
    with pytest.raises(DataError, match="row group 0"):
        DataSet(path).batch([0])  # whichever rows are wanted, so that a resumed run takes the same ones


def test_what_is_not_as_long_as_its_shape_says_is_not_read_straight(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 0 has one value less, and row 1 one more, than their shapes say; then row 0 alone is shorter, or null."""
    rows = [sample_row(n) for n in range(8)]
    rows[0][LATENT], rows[1][LATENT] = rows[0][LATENT][:-4], rows[1][LATENT] + rows[0][LATENT][-4:]
    path = write(tmp_path / "a.parquet", rows)
    with pytest.raises(DataError, match=r"a.parquet, row 0: vae_latent_bytes holds 60 bytes"):
        batches(path)
    assert read == ["pyarrow"]
    monkeypatch.setattr(parquet_folder, "read_values", pytest.fail)
    rows[1] = sample_row(1)
    for latent, what in ((rows[0][LATENT], "holds 60 bytes"), (None, "is null")):
        rows[0][LATENT] = latent
        write(path, rows)
        with pytest.raises(DataError, match=rf"a.parquet, row 0: vae_latent_bytes {what}"):
            batches(path)
    assert read == ["pyarrow"] * 3


def test_a_bad_row_among_plain_ones_is_replaced_as_ever(tmp_path: Path, read: list[str]) -> None:
    rows = [sample_row(n, shape=(2, 2, 4, 4)) for n in range(16)]
    rows[3][LATENT] = rows[3][LATENT][:-4]
    path = write(tmp_path / "a.parquet", rows)
    found = batches(path, skip_bad_rows=True, count=5)
    assert {*read} == {"file", "pyarrow"}
    assert same(found, by_pyarrow(path, skip_bad_rows=True, count=5))


def test_a_file_that_is_cut_while_it_is_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", some_rows(50))
    real = parquet_folder.value_places

    def cuts(*args: Any) -> Any:
        found = real(*args)
        os.truncate(path, 500)
        return found

    monkeypatch.setattr(parquet_folder, "value_places", cuts)
    with pytest.raises(DataError, match=r"a.parquet, row group \d: changed since the run started"):
        batches(path)


def test_headers_and_levels_that_are_none_are_refused() -> None:
    header = bytes([0x15, 0, 0x15, 22, 0x15, 22, 0x2C, 0x15, 2, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0])
    levels = b"\2\0\0\0\2\1"
    start = len(header) + len(levels)
    assert plain_values._page(header, 0) == (len(header), len(header) + 11, 1)
    assert plain_values._page(header + levels, 1) == (start, len(header) + 11, 1)
    assert all(plain_values._page((header + levels)[:end], 1) is None for end in range(start))
    for at, value in itertools.product(range(len(levels)), range(256)):
        other = levels[:at] + bytes([value]) + levels[at + 1 :]
        assert other == levels or plain_values._page(header + other + bytes(300), 1) is None
    assert plain_values._page(b"\x1c" * plain_values._HEADER_BYTES, 0) is None
    assert plain_values._page(b"\xff" * plain_values._HEADER_BYTES, 0) is None
