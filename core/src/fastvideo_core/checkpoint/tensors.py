"""Reads and writes the tensors of a checkpoint: safetensors files, which torch.distributed.checkpoint shares out."""

import json
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, SAVED_OFFSETS_KEY
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from fastvideo_core.checkpoint.storage import DAMAGED
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, foreign_file


def save_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Writes one safetensors file, with its folder, for all who may read the folder; raises OSError. Returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        safetensors.torch.save_file(tensors, path, metadata)
    except safetensors.SafetensorError as error:
        if number := re.search(r"(?:os error|code:) (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes files that their owner alone may read
    return path


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None = None) -> list[Path]:
    """Writes tensors (also DTensors, each rank its shards) into `folder`; raises OSError. Collective among `group`, or all.

    Returns this process's files: one for every first part of the tensors' keys ("roles" of "roles.student.net.weight").
    """
    writer = _Writer(folder)
    with _first_failure():
        save(dict(tensors), storage_writer=writer, process_group=group, no_dist=context.world_size() == 1)
    return writer.files


class _Writer(HuggingFaceStorageWriter):
    """Writes with safetensors' save_file. Torch's own way makes a copy of all in memory, for which Python stands still (0.27 s
    for 512 MB, against 0.007 s), and refuses tensors with gaps (test_tensors_of_every_kind_come_back_bitwise)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), save_distributed=True)
        self._folder = folder
        self.files: list[Path] = []

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        sections, results = defaultdict(list), []
        for item in plan.items:
            sections[item.index.fqn.partition(".")[0]].append(item)
        for section, items in sections.items():
            tensors: dict[str, Tensor] = {}
            offsets, storages = {}, set()
            for item in items:
                key, value = item.index.fqn, planner.resolve_data(item)
                assert isinstance(value, Tensor), f"{key} is not a tensor"
                assert item.tensor_data is not None
                tensor = value.detach().cpu().contiguous()
                storage = tensor.untyped_storage().data_ptr()
                tensors[key] = tensor.clone() if storage in storages else tensor  # tied weights are stored twice
                storages.add(storage)
                offsets[key] = {SAVED_OFFSETS_KEY: list(item.tensor_data.chunk.offsets)}
                results.append(WriteResult(item.index, tensor.nbytes, None))
            file = self._folder / f"{section}-rank-{context.rank():05d}.safetensors"
            save_file(tensors, file, {"format": "pt", CUSTOM_METADATA_KEY: json.dumps(offsets)})
            self.files.append(file)
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done


class StoredTensors(HuggingFaceStorageReader):
    """The tensors that `write_tensors` has put into a folder, whatever number of processes did.

    `index` has size, dtype and chunks of every tensor, by key. With `together` the main process opens the files for the index of
    all (collective). Raises CheckpointError when a file is none of safetensors'.
    """

    def __init__(self, folder: Path, *, together: bool = False) -> None:
        super().__init__(str(folder))
        self.folder = folder
        self._metadata = context.told_by_main(self._look) if together else self._look()
        # "assignment": torch's type allows bytes beside tensors, which safetensors files do not hold.
        self.index: dict[str, TensorStorageMetadata] = self._metadata.state_dict_metadata  # type: ignore[assignment]

    def _look(self) -> Metadata:
        with foreign_file(self.folder, "set of stored tensors", CheckpointError, DAMAGED):
            return super().read_metadata()

    def files(self, keys: Iterable[str]) -> list[str]:
        """Names of the files that hold any of these tensors."""
        wanted, stored = set(keys), self._metadata.storage_data or {}
        return sorted({Path(info.relative_path).name for index, info in stored.items() if index.fqn in wanted})

    def read(self, targets: Mapping[str, Tensor], *, every_rank_alone: bool = False) -> None:
        """Reads stored tensors into `targets`, in place; shapes must fit. Collective unless `every_rank_alone`.

        Raises CheckpointError where a tensor or a file is missing or damaged.
        """
        if not targets:
            return
        alone = every_rank_alone or context.world_size() == 1
        with foreign_file(self.folder, "set of stored tensors", CheckpointError, DAMAGED), _first_failure():
            load(dict(targets), storage_reader=self, no_dist=alone)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata


@contextmanager
def _first_failure() -> Iterator[None]:
    """What went wrong on the first process that failed, in place of torch's list."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
            yield
    except CheckpointException as error:
        failure, _ = next(iter(error.failures.values()))
        raise (failure if isinstance(failure, BaseException) else RuntimeError(str(failure))) from error
