"""Reads and writes the tensors of a checkpoint with torch.distributed.checkpoint, without running what a file says.

DCP keeps its index in a pickle. It is read here by an unpickler that knows only the classes of such an index.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from fastvideo_core.checkpoint.checksums import Sums, checksum, read_summed, read_sums, write_sums
from fastvideo_core.distributed.context import world_size
from fastvideo_core.errors import CheckpointError, Problem

_INDEX = ".metadata"

_CLASSES = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (
        dcp_metadata.Metadata,
        dcp_metadata.TensorStorageMetadata,
        dcp_metadata.TensorProperties,
        dcp_metadata.ChunkStorageMetadata,
        dcp_metadata.MetadataIndex,
        dcp_metadata.StorageMeta,
        dcp_metadata._MEM_FORMAT_ENCODING,
        filesystem._StorageInfo,
        torch.Size,
    )
}


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Writes tensors (also DTensors, each rank its shards) into `folder` and syncs the files. Collective.

    Args:
        group: the processes that write together; None is all of the run.

    Raises:
        OSError: the disk is full or read-only, or whatever else the system says.
    """
    writer = _Writer(str(folder), single_file_per_rank=True, sync_files=True)
    try:
        with _quiet():
            dcp_save(dict(tensors), storage_writer=writer, process_group=group, no_dist=world_size() == 1)
    except CheckpointException as error:
        raise _first_failure(error) from error


def read_tensors(folder: Path, targets: Mapping[str, Tensor], *, every_rank_alone: bool = False) -> None:
    """Reads the stored tensors into `targets`, in place; shapes must fit. Collective unless `every_rank_alone`.

    Raises:
        CheckpointError: a file is missing or damaged, or the index is not one.
    """
    if not targets:
        return
    try:
        with _quiet():
            dcp_load(dict(targets), storage_reader=_Reader(folder), no_dist=every_rank_alone or world_size() == 1)
    except CheckpointException as error:
        failure = _first_failure(error)
        if isinstance(failure, CheckpointError):
            raise failure from error
        raise CheckpointError(
            Problem(
                found=f"the stored tensors cannot be read: {type(failure).__name__}: {failure}",
                where=str(folder),
                fix="use another checkpoint; this one is damaged",
            )
        ) from error


def read_index(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Size, dtype and chunks of every stored tensor, by key.

    Raises:
        CheckpointError: the index is missing, damaged, or refers to anything but itself.
    """
    path = folder / _INDEX
    entries = _read_metadata(path).state_dict_metadata
    return {key: entry for key, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def _read_metadata(path: Path) -> Metadata:
    content = read_summed(path)
    try:
        return _checked(_IndexUnpickler(path, content).load(), path)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise _not_an_index(path, f"{type(error).__name__}: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        yield


class _Writer(filesystem.FileSystemWriter):
    """Writes the bytes of tensors one after another into a file per process; DCP's own serialises each with torch.save,
    which takes twice as long and holds up Python meanwhile."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        name = f"{plan.storage_data.prefix}0{filesystem.DEFAULT_SUFFIX}"
        results, offset, sums = [], 0, {}
        with (Path(self.path) / name).open("wb", buffering=0) as file, ThreadPoolExecutor(1) as beside:
            for item in plan.items:
                value = planner.resolve_data(item)
                assert isinstance(value, Tensor), f"{item.index.fqn} is not a tensor"
                content = bytes_of(value)
                if not len(content):
                    results.append(WriteResult(item.index, 0, filesystem._StorageInfo(name, offset, 0)))
                    continue
                summed = beside.submit(checksum, content)  # while the system takes the bytes
                data = content.data
                results.append(WriteResult(item.index, len(data), filesystem._StorageInfo(name, offset, len(data))))
                start, offset = offset, offset + len(data)
                while data:
                    data = data[file.write(data) :]
                sums[start] = summed.result()
            os.fsync(file.fileno())
        write_sums(Path(self.path) / name, sums)
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        super().finish(metadata, results)
        index = Path(self.path) / _INDEX
        write_sums(index, {0: checksum(index.read_bytes())})

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(save_id=self.save_id)  # DCP's own holds the absolute path


class _Reader(filesystem.FileSystemReader):
    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder
        self._entries: dict[str, Any] = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = _read_metadata(self._folder / _INDEX)
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata

    def set_up_storage_reader(self, metadata: Metadata, *args: Any, **kwargs: Any) -> None:
        super().set_up_storage_reader(metadata, *args, **kwargs)
        self._entries = metadata.state_dict_metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_file: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            by_file.setdefault(self.storage_data[item.storage_index].relative_path, []).append(item)
        for name, items in by_file.items():
            sums = read_sums(self._folder / name)
            with (self._folder / name).open("rb") as file:
                for item in items:
                    whole = self._read(file, item, sums)
                    stored = narrow_tensor_by_index(whole, item.storage_offsets, item.lengths)
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(stored)
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read(self, file: IO[bytes], item: ReadItem, sums: Sums) -> Tensor:
        """The stored chunk that `item` is a part of, as it was written."""
        index, info = item.storage_index, self.storage_data[item.storage_index]
        entry = self._entries[index.fqn]
        chunk = next(chunk for chunk in entry.chunks if index.offset is None or chunk.offsets == index.offset)
        tensor = torch.empty(chunk.sizes, dtype=entry.properties.dtype)
        data = bytes_of(tensor)
        if len(data) != info.length:
            raise ValueError(f"'{index.fqn}' has {info.length} bytes instead of {len(data)}")
        file.seek(info.offset)
        if file.readinto(data.data) != len(data):  # type: ignore[attr-defined]
            raise ValueError(f"{info.relative_path} ends inside of '{index.fqn}'")
        if not sums.fit(info.offset, data):
            raise ValueError(
                f"{info.relative_path} was changed since it was written: the bytes of '{index.fqn}' differ"
            )
        return tensor


def bytes_of(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of a tensor; they share its memory when it lies on the CPU without gaps."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


class _IndexUnpickler(pickle.Unpickler):
    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CLASSES:
            return _CLASSES[module, name]
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if (module, name) == ("torch.serialization", "_get_layout"):
            return _layout
        raise _not_an_index(self._path, f"it names {module}.{name}, which no such index contains")

    def persistent_load(self, pid: Any) -> Any:
        raise _not_an_index(self._path, "it has persistent references")


def _layout(name: str) -> torch.layout:
    if name != "torch.strided":
        raise ValueError(f"tensors of layout {name}")
    return torch.strided


def _checked(metadata: Any, path: Path) -> Metadata:
    if not isinstance(metadata, Metadata) or not isinstance(metadata.state_dict_metadata, dict):
        raise _not_an_index(path, f"it holds a {type(metadata).__name__}")
    for key, entry in metadata.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise _not_an_index(path, f"'{key}' is not a tensor")
    for info in dict(metadata.storage_data or {}).values():
        if not isinstance(info, filesystem._StorageInfo) or Path(info.relative_path).name != info.relative_path:
            raise _not_an_index(path, "it refers to a file outside of its folder")
        if info.transform_descriptors:
            raise _not_an_index(path, f"it asks for the stream transforms {info.transform_descriptors}")
    return metadata


def _not_an_index(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        Problem(
            found=f"this is not the index of a checkpoint: {why}",
            where=str(path),
            fix="do not use this checkpoint: it is damaged, or made to run code",
        )
    )


def _first_failure(error: CheckpointException) -> BaseException:
    failure, _ = next(iter(error.failures.values()))
    return failure if isinstance(failure, BaseException) else RuntimeError(str(failure))
