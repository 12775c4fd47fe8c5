"""A parquet data set, opened once; everything that a run asks of its data is asked of this one object.

    data = DataSet(path, wanted=("text_embedding",), optional=("vae_latent", "keyframe_latents"))
    data.num_samples, data.tensor_names, data.normalised, data.unsaid_normalisation, data.encoders
    data.examples()                                   # raw batches of one, one for each latent shape
    data.loader(batch_size=4, seed=0, rank=0, size=8, num_workers=2, skip_bad_rows=False)
    data.select(wanted=(...), optional=(...))         # the same files for somebody who reads other tensors
    data.close()

Opening looks at every file once: footers, which tensors there are, latent shapes. The processes of a run share that out
(`together`), so that one of them opens each file for it. Each footer is parsed once in a process, however many examples,
loaders and selections come of it (up to 64 MB of footers, which is some thousand files; those of others are parsed again
whenever the loader opens the file).

Who reads says which tensors it wants: `wanted` must be there, `optional` are read where the files hold them, and no other
column is ever read. With `wanted=None` all of FastVideo's tensors that are there are read, but pil_image.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastvideo_data.loading.batch_buffers import BatchMemory, MemoryPool
from fastvideo_data.loading.collate import Row, assemble, decode_rows
from fastvideo_data.loading.file_scan import scan_files
from fastvideo_data.loading.loader import WINDOW_BYTES, ParquetLoader
from fastvideo_data.loading.parquet_folder import Handles
from fastvideo_data.loading.selection import choose


@dataclass(frozen=True)
class EncodedBy:
    """The encoders that made some files of a data set.

    Args:
        file: the first of these files.
        encoder: the encoders, as `LatentEncoder.describe` says it; None where the files do not tell.
    """

    file: Path
    encoder: Mapping[str, str] | None


class DataSet:
    """All parquet files below a folder, or one file; nothing is ever written there.

    Args:
        path: folder that is searched for *.parquet, or one file.
        wanted: names of the tensors to read, which all files must hold; None for FastVideo's that are there, but pil_image.
        optional: names of tensors to read besides, where the files hold them (all of them, or none).
        together: all processes of the run open it, and each file is looked at by one of them; collective.

    Raises:
        DataError: nothing there, no rows at all, files that are damaged or no parquet, missing columns, a tensor that is
            wanted and not there, files that disagree; all files that are wrong are named at once.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        wanted: Sequence[str] | None = None,
        optional: Sequence[str] = (),
        together: bool = False,
    ) -> None:
        self.path = Path(path)
        self._files = scan_files(self.path, together=together)
        self._handles = Handles()
        self._folder = choose(self.path, self._files, self._handles, wanted, optional)

    def select(self, *, wanted: Sequence[str] | None = None, optional: Sequence[str] = ()) -> DataSet:
        """The same opened files for somebody who reads other tensors; as if opened with these arguments.

        Raises:
            DataError: a tensor that is wanted is not there or cannot be read, or the files disagree on one.
        """
        selected = copy.copy(self)
        selected._folder = choose(self.path, self._files, self._handles, wanted, optional)
        return selected

    @property
    def num_samples(self) -> int:
        """Rows of all files."""
        return self._folder.layout.num_rows

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names of the tensors that are read."""
        return self._folder.tensors

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Names of the tensors that all files hold, FastVideo's and others."""
        first, *others = self._files
        return tuple(name for name in first.present() if all(name in file.present() for file in others))

    @property
    def normalised(self) -> Mapping[str, bool]:
        """For each tensor that is read and holds latents, whether they are taken to be normalised."""
        return self._folder.normalised

    @property
    def unsaid_normalisation(self) -> Path | None:
        """A file that does not say whether its latents are normalised; None where all do, or no latents are read."""
        unsaid = (file.path for file in self._files if not file.says_normalised)
        return next(unsaid, None) if self.normalised else None

    @property
    def encoders(self) -> tuple[EncodedBy, ...]:
        """Every different description of the encoders that made the files."""
        found: list[EncodedBy] = []
        for file in self._files:
            if all(file.encoder != other.encoder for other in found):
                found.append(EncodedBy(file.path, file.encoder))
        return tuple(found)

    def examples(self) -> list[dict[str, Any]]:
        """A raw batch of one for every latent shape: the first row with it.

        Raises:
            DataError: such a row cannot be read.
        """
        _, first_rows = np.unique(self._folder.layout.buckets, return_index=True)
        return [self.batch([int(row)]) for row in sorted(first_rows)]

    def batch(self, rows: Sequence[int]) -> dict[str, Any]:
        """The raw batch of some rows, in this order; they are numbered from 0 through all files, which are sorted by name.

        Raises:
            DataError: a row cannot be read, or they cannot go into one batch.
        """
        starts = self._folder.layout.group_starts
        memory = BatchMemory(MemoryPool(keep_bytes=0), batch_size=len(rows))
        decoded: list[Row] = []
        for slot, row in enumerate(rows):
            group = int(np.searchsorted(starts, row, side="right")) - 1
            found = decode_rows(self._folder, group, [row - int(starts[group])], [slot], memory)
            decoded += [one for one in found if isinstance(one, Row)]
        return assemble(self._folder, decoded, 0, memory)

    def infos(self) -> list[dict[str, Any]]:
        """The metadata of every row, as batches give it under `info`, in the order of `batch`.

        Raises:
            DataError: a file cannot be read.
        """
        folder, found = self._folder, []
        for group in range(len(folder.layout.group_rows)):
            details = folder.details(group)
            columns = {
                name: details.get(name, [None] * int(folder.layout.group_rows[group])) for name in folder.metadata
            }
            found += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return found

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
        source: int | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> ParquetLoader:
        """Endless raw batches of the data set; see `ParquetLoader`.

        Args:
            batch_size: rows per batch and rank, >= 1.
            seed: seed of the order, >= 0.
            rank: number of this data-parallel rank.
            size: number of data-parallel ranks.
            num_workers: threads that read ahead; 0 reads when a batch is asked for. Never changes the order.
            skip_bad_rows: a damaged row is logged, and another one stands in its place; else it is an error.
            window_bytes: size of the windows in which rows are shuffled; bounds the memory.
            source: number of the data set among several, see `ParquetLoader`.
            extras: what every batch holds besides.

        Raises:
            DataError: an argument is out of its range.
        """
        return ParquetLoader(
            self._folder,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            size=size,
            num_workers=num_workers,
            skip_bad_rows=skip_bad_rows,
            window_bytes=window_bytes,
            source=source,
            extras=extras,
        )

    def close(self) -> None:
        """Close open files; loaders are closed by themselves, and what is asked for later opens files again."""
        self._handles.close()
