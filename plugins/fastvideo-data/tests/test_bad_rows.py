"""`skip_bad_rows`: a damaged row is replaced by the same other row, whatever reads it and whenever."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tiny_data import ids, sample_row, write_file

from fastvideo_core.errors import DataError
from fastvideo_data.data_set import DataSet

BAD = (3, 7)


def data_with_bad_rows(root: Path, rows: int = 12, bad: tuple[int, ...] = BAD) -> Path:
    made = [sample_row(n) for n in range(rows)]
    for number in bad:
        made[number]["vae_latent_bytes"] = made[number]["vae_latent_bytes"][:-1]
    write_file(root / "a.parquet", made)
    return root


def damage_group(path: Path, group: int) -> None:
    footer = pq.read_metadata(path).row_group(group)
    columns = [footer.column(i) for i in range(footer.num_columns)]
    column = next(one for one in columns if one.path_in_schema == "vae_latent_bytes")
    start = min(offset for offset in (column.data_page_offset, column.dictionary_page_offset) if offset)
    content = bytearray(path.read_bytes())
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)


def read(path: Path, batches: int, **options: Any) -> list[dict[str, Any]]:
    loader = DataSet(path).loader(seed=0, skip_bad_rows=True, **{"batch_size": 2, **options})
    return list(itertools.islice(loader, batches))


def test_a_bad_row_is_an_error_by_default(tmp_path: Path) -> None:
    loader = DataSet(data_with_bad_rows(tmp_path)).loader(batch_size=2, seed=0)
    with pytest.raises(DataError, match=r"row [37]: vae_latent_bytes holds 63 bytes"):
        list(itertools.islice(loader, 6))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_other_rows_stand_in_and_the_rest_of_the_order_stays(tmp_path: Path, batch_size: int) -> None:
    whole = data_with_bad_rows(tmp_path / "whole", bad=())
    broken = data_with_bad_rows(tmp_path / "broken")
    expected = [ids(batch) for batch in read(whole, 24, batch_size=batch_size)]
    found = read(broken, 24, batch_size=batch_size)
    for before, batch in zip(expected, found, strict=True):
        now = ids(batch)
        assert not set(now) & set(BAD)
        assert [one for one, old in zip(now, before, strict=True) if old not in BAD] == [
            old for old in before if old not in BAD
        ]
        for number, latent in zip(now, batch["vae_latent"], strict=True):
            assert torch.equal(latent, torch.full((2, 2, 2, 2), float(number)))


def test_workers_do_not_change_what_stands_in(tmp_path: Path) -> None:
    data_with_bad_rows(tmp_path)
    assert [ids(b) for b in read(tmp_path, 20)] == [ids(b) for b in read(tmp_path, 20, num_workers=2)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_takes_the_same_rows(tmp_path: Path, workers: int) -> None:
    data_with_bad_rows(tmp_path)
    expected = [ids(batch) for batch in read(tmp_path, 15)]
    for start in range(1, 14):
        options: dict[str, Any] = {"batch_size": 2, "seed": 0, "num_workers": workers, "skip_bad_rows": True}
        loader = DataSet(tmp_path).loader(**options)
        list(itertools.islice(loader, start))
        state = json.loads(json.dumps(loader.state_dict()))
        loader.close()
        again = DataSet(tmp_path).loader(**options)
        again.load_state_dict(state)
        assert [ids(batch) for batch in itertools.islice(again, 15 - start)] == expected[start:]
        again.close()


def test_they_are_counted_when_handed_out_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data_with_bad_rows(tmp_path)
    loader = DataSet(tmp_path).loader(batch_size=2, seed=0, num_workers=2, skip_bad_rows=True)
    assert loader.take_skipped_rows() == 0
    list(itertools.islice(loader, 6))
    assert loader.take_skipped_rows() == 2
    assert loader.take_skipped_rows() == 0
    list(itertools.islice(loader, 6))
    assert loader.take_skipped_rows() == 2
    loader.close()
    assert caplog.text.count("another row is taken instead (training.on_bad_row: skip)") == 2
    assert caplog.text.count("a.parquet, row 3: vae_latent_bytes holds 63 bytes") == 1
    assert DataSet(tmp_path).loader(batch_size=2, seed=0).take_skipped_rows() is None


def test_a_row_group_that_cannot_be_read_is_all_bad_rows(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(n) for n in range(12)])
    damage_group(tmp_path / "a.parquet", 1)
    seen = {number for batch in read(tmp_path, 6) for number in ids(batch)}
    assert seen == set(range(12)) - {2, 3}


def test_without_any_good_row_of_the_shape_it_is_an_error(tmp_path: Path) -> None:
    data_with_bad_rows(tmp_path, rows=2, bad=(0, 1))
    with pytest.raises(DataError, match="no row of its latent shape can be read instead of it"):
        read(tmp_path, 1)


def test_a_file_that_changed_is_an_error_all_the_same(tmp_path: Path) -> None:
    data_with_bad_rows(tmp_path)
    loader = DataSet(tmp_path).loader(batch_size=2, seed=0, skip_bad_rows=True)
    write_file(tmp_path / "a.parquet", [sample_row(n) for n in range(40)])
    with pytest.raises(DataError, match="changed since the run started"):
        next(loader)
