"""Batches of several data sets: whose is next is drawn at random, alike on all ranks, and each keeps its own position."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastvideo_core.errors import CheckpointError, Problem
from fastvideo_data.loading.loader import ParquetLoader

_DRAWS = 4  # the orders of the data sets have streams 0 to 3
_BLOCK = 1024


class SourcesLoader:
    """An endless iterator of raw batches, each of one data set.

    The data set of batch n is a function of (seed, n) and the weights alone. `state_dict` is that of every loader, and n.

    Args:
        loaders: one for each data set, with batches of the same latent shapes on all ranks (`source` of `ParquetLoader`).
        weights: how likely a batch is of each of them, up to a common factor; > 0.
        seed: of the draws, >= 0.
    """

    def __init__(self, loaders: Sequence[ParquetLoader], *, weights: Sequence[float], seed: int) -> None:
        self.loaders = tuple(loaders)
        self._shares = np.cumsum(np.array(weights, np.float64) / np.sum(weights))
        self._seed = seed
        self._draws = 0

    @property
    def num_samples(self) -> int:
        """Rows of all data sets, over all ranks."""
        return sum(loader.num_samples for loader in self.loaders)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of every rank in which every data set is expected to be read once at least."""
        shares = np.diff(self._shares, prepend=0.0)
        return int(max(loader.batches_per_epoch / share for loader, share in zip(self.loaders, shares, strict=True)))

    def __iter__(self) -> SourcesLoader:
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self.loaders[self.source_of(self._draws)])
        self._draws += 1
        return batch

    def source_of(self, draw: int) -> int:
        """The number of the data set of a batch, which is counted from 0."""
        block, place = divmod(draw, _BLOCK)
        return int(np.searchsorted(self._shares[:-1], _uniform(self._seed, block)[place], side="right"))

    def take_skipped_rows(self) -> int | None:
        """As `ParquetLoader.take_skipped_rows`, of all data sets."""
        taken = [rows for loader in self.loaders if (rows := loader.take_skipped_rows()) is not None]
        return sum(taken) if taken else None

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch that was handed out last; plain JSON values, the same on all ranks."""
        return {"draws": self._draws, "sources": [loader.state_dict() for loader in self.loaders]}

    @staticmethod
    def is_state(state: object) -> bool:
        """Whether it is a state of this loader."""
        return isinstance(state, dict) and type(state.get("draws")) is int and type(state.get("sources")) is list

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the position of `state`; other weights hold from there on.

        Raises:
            CheckpointError: the state is none of so many data sets, or one of them is not as it was.
        """
        stored = state["sources"] if self.is_state(state) else [state]
        if not self.is_state(state) or len(stored) != len(self.loaders):
            found = f"the run's data is of {len(self.loaders)} sources with weights, but the checkpoint's was of {len(stored)}"
            fix = "give training.data_path as it was, or go on with this data by --resume latest --new-data"
            raise CheckpointError(Problem(found if self.is_state(state) else f"{found} without one", fix=fix))
        problems: list[Problem] = []
        for loader, position in zip(self.loaders, stored, strict=True):
            try:
                loader.load_state_dict(position)
            except CheckpointError as error:
                problems += error.problems
        if problems:
            raise CheckpointError(problems)
        self._draws = int(state["draws"])

    def close(self) -> None:
        """Stop reading ahead and end the threads; iterating again goes on where the consumer stopped."""
        for loader in self.loaders:
            loader.close()


@lru_cache(maxsize=4)
def _uniform(seed: int, block: int) -> npt.NDArray[np.float64]:
    """The draws of a block, each from 0 to 1."""
    return np.random.Generator(np.random.PCG64([seed, block, _DRAWS])).random(_BLOCK)
