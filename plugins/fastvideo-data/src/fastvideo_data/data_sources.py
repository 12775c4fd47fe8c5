"""The data sets of a run: one, or several whose batches are mixed by their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvideo_core.config.training import DataSource
from fastvideo_core.errors import DataError, Problem
from fastvideo_data.data_set import DataSet
from fastvideo_data.loading.loader import WINDOW_BYTES, ParquetLoader
from fastvideo_data.loading.sources import SourcesLoader
from fastvideo_data.raw_batch import LOSS_WEIGHT, SOURCE


class DataSources:
    """Data sets that are opened once; see `DataSet`.

    Args:
        sources: as `training.data_sources` gives them.
        wanted: names of the tensors to read, which every data set must hold.
        optional: names of tensors to read besides, of each data set that holds them.
        together: all processes of the run open them; collective.

    Raises:
        DataError: as `DataSet`, of all data sets at once.
    """

    def __init__(
        self,
        sources: Mapping[str, DataSource],
        *,
        wanted: Sequence[str] | None = None,
        optional: Sequence[str] = (),
        together: bool = False,
    ) -> None:
        self.sources = dict(sources)
        self.data_sets: dict[str, DataSet] = {}
        problems: list[Problem] = []
        for key, source in self.sources.items():
            try:
                self.data_sets[key] = DataSet(source.path, wanted=wanted, optional=optional, together=together)
            except DataError as error:
                problems += error.problems if len(self.sources) == 1 else _at(key, error)
        if problems:
            raise DataError(problems)

    @property
    def alone(self) -> bool:
        """Whether there is one data set, and it has no weight: it is then read as if there were never others."""
        (first, *others) = self.sources.values()
        return not others and first.weight is None

    def examples(self) -> list[dict[str, Any]]:
        """A raw batch of one for every latent shape of every data set: the first row with it.

        Raises:
            DataError: such a row cannot be read.
        """
        return [{**example, **self._extras(key)} for key, data in self.data_sets.items() for example in data.examples()]

    def loader(
        self,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        size: int = 1,
        num_workers: int = 0,
        skip_bad_rows: bool = False,
        window_bytes: int = WINDOW_BYTES,
    ) -> ParquetLoader | SourcesLoader:
        """Endless raw batches, each of one data set; arguments as `DataSet.loader`.

        Args:
            num_workers: of each data set.
            window_bytes: of all data sets together.

        Raises:
            DataError: an argument is out of its range.
        """
        loaders = [
            data.loader(
                batch_size=batch_size,
                seed=seed,
                rank=rank,
                size=size,
                num_workers=num_workers,
                skip_bad_rows=skip_bad_rows,
                window_bytes=max(1, window_bytes // len(self.data_sets)),
                source=None if self.alone else number,
                extras=self._extras(key),
            )
            for number, (key, data) in enumerate(self.data_sets.items())
        ]
        if self.alone:
            return loaders[0]
        weights = [1.0 if source.weight is None else source.weight for source in self.sources.values()]
        return SourcesLoader(loaders, weights=weights, seed=seed)

    def _extras(self, key: str) -> dict[str, Any]:
        weight = self.sources[key].loss_weight
        several = {SOURCE: key} if len(self.sources) > 1 else {}
        return {**several, **({LOSS_WEIGHT: weight} if weight != 1 else {})}

    def close(self) -> None:
        """Close open files; what is asked for later opens files again."""
        for data in self.data_sets.values():
            data.close()


def _at(key: str, error: DataError) -> list[Problem]:
    """The problems of a source, each with the source's key before its place."""
    return [
        Problem(one.found, f"{key}: {one.where}" if one.where else key, one.allowed, one.fix) for one in error.problems
    ]
