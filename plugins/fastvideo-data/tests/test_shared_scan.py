"""The processes of a run look at the files of a data set together: each file is opened by one of them."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny_data import ids, sample_row, write_file, write_numbered

from fastvideo_core.errors import DataError
from fastvideo_data.data_set import DataSet
from fastvideo_data.loading import file_scan


class Processes:
    """Threads that stand for processes; has what of `distributed.context` the scan asks."""

    def __init__(self, count: int) -> None:
        self._own, self._barrier = threading.local(), threading.Barrier(count, timeout=60)
        self._given: list[bytes] = [b""] * count

    def run(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` gives, or raises, by rank."""

        def of_rank(rank: int) -> Any:
            self._own.rank = rank
            try:
                return work()
            except DataError as error:
                return str(error)

        with ThreadPoolExecutor(self.world_size()) as pool:
            return list(pool.map(of_rank, range(self.world_size())))

    def rank(self) -> int:
        return int(self._own.rank)

    def world_size(self) -> int:
        return len(self._given)

    def gathered(self, value: Any) -> list[Any]:
        self._given[self.rank()] = pickle.dumps(value)
        self._barrier.wait()
        found = [pickle.loads(one) for one in self._given]
        self._barrier.wait()
        return found

    def told_by_main(self, look: Callable[[], Any]) -> Any:
        found, error = None, None
        if self.rank() == 0:
            try:
                found = look()
            except DataError as raised:
                error = raised
        found, error = self.gathered((found, error))[0]
        if error is not None:
            raise error
        return found


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was looked at, by its name."""
    found: Counter[str] = Counter()
    scan = file_scan.scan

    def counted(path: Path) -> Any:
        found.update([path.name])
        return scan(path)

    monkeypatch.setattr(file_scan, "scan", counted)
    return found


def _together(monkeypatch: pytest.MonkeyPatch, path: Path, processes: int = 2) -> list[Any]:
    group = Processes(processes)
    monkeypatch.setattr(file_scan, "context", group)
    return group.run(lambda: DataSet(path, together=True))


@pytest.mark.parametrize("processes", [2, 5])
def test_each_file_is_looked_at_once_in_all_and_batches_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanned: Counter[str], processes: int
) -> None:
    write_numbered(tmp_path, [2, 4, 2])
    alone = DataSet(tmp_path)
    scanned.clear()
    opened = _together(monkeypatch, tmp_path, processes)
    assert scanned == {"part-0.parquet": 1, "part-1.parquet": 1, "part-2.parquet": 1}
    expected = alone.loader(batch_size=2, seed=0)
    for data in opened:
        loader = data.loader(batch_size=2, seed=0)
        assert loader.state_dict() == expected.state_dict()
        assert (data.encoders, data.normalised) == (alone.encoders, alone.normalised)
    for _ in range(6):
        batch = ids(next(expected))
    loaders = [data.loader(batch_size=2, seed=0) for data in opened]
    assert all(ids([next(loader) for _ in range(6)][-1]) == batch for loader in loaders)


def test_what_is_wrong_with_a_file_is_told_alike_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_numbered(tmp_path, [2, 2, 2])
    for number in (1, 2):
        (tmp_path / f"part-{number}.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError) as alone:
        DataSet(tmp_path)
    assert _together(monkeypatch, tmp_path) == [str(alone.value)] * 2
    assert "part-1.parquet" in str(alone.value)
    assert "part-2.parquet" in str(alone.value)
    with pytest.raises(DataError) as missing:
        DataSet(tmp_path / "nowhere")
    assert _together(monkeypatch, tmp_path / "nowhere") == [str(missing.value)] * 2


def test_footers_take_no_more_memory_than_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_file(tmp_path / f"part-{number}.parquet", [sample_row(number)])
    kept = DataSet(tmp_path)._files[0].footer.serialized_size
    monkeypatch.setattr(file_scan, "_KEPT_FOOTERS", 3 * kept)  # 1.5 for each of two processes
    for data in _together(monkeypatch, tmp_path):
        assert [file.footer is not None for file in data._files] == [True, True, False, False]
        assert len(data.batch([0, 1, 2, 3])["info"]) == 4
