"""State that differs from process to process (the loader's, say): each process keeps its own in a file of its own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import safetensors
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.document import DAMAGED, CheckpointDocument, check_files
from fastvideo_core.checkpoint.tree import Json, references
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, ContractError, Problem, foreign_file

logger = logging.getLogger(__name__)

_Place: TypeAlias = tuple[str, ...]
OwnState: TypeAlias = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors and metadata of one process's file."""

_DATA: _Place = ("dataloader",)
_DEPTHS = {"method": 1, "callbacks": 2, "dataloader": 0}
"""Sections that may differ from process to process, and how deep their entries lie: a key of the method, a key of a callback, the
whole dataloader. All other sections are the same on all processes."""


class _Digest(NamedTuple):
    """What tells an entry from another, and whether it has a sharded tensor."""

    sha256: str
    sharded: bool


def separate(
    tensors: dict[str, Tensor], skeleton: Json, group: dist.ProcessGroup | None
) -> tuple[dict[str, Tensor], Json, OwnState | None]:
    """Takes out of a split state tree the entries that differ from process to process. Collective.

    Returns:
        Tensors and skeleton without these entries (a sharded tensor counts as the same for all), and the entries for this
        process's own file; None, on all processes, when nothing differs.

    Raises:
        ContractError: an entry that differs has a sharded tensor in it.
    """
    if group is None:
        return tensors, skeleton, None
    assert isinstance(skeleton, dict)
    entries: dict[_Place, Json] = {}
    for section, depth in _DEPTHS.items():
        entries.update(_entries((section,), skeleton[section], depth))
    digests: list[dict[_Place, _Digest]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(digests, {place: _digest(node, tensors) for place, node in entries.items()}, group=group)
    places = sorted({place for one in digests for place in one})
    differing = [place for place in places if len({one.get(place) for one in digests}) > 1]
    if mixed := [place for place in differing if any(one[place].sharded for one in digests if place in one)]:
        fix = "keep what differs under a key of its own, or make it the same on all of them"
        found = "a sharded tensor is kept together with something that is not the same on all processes"
        raise ContractError([Problem(found, _told(place), fix=fix) for place in mixed])
    if not differing:
        return tensors, skeleton, None
    shared: Json = skeleton
    copies: dict[str, Tensor] = {}
    own = [(place, entries[place]) for place in differing if place in entries]
    for place, node in own:
        shared = _without(shared, place)
        for key in references(node):
            copies[key] = torch.empty_like(tensors[key], device="cpu", memory_format=torch.contiguous_format)
            copies[key].copy_(tensors[key])
    metadata = {"state": json.dumps({"differing": differing, "own": own}, allow_nan=False)}
    return {key: tensor for key, tensor in tensors.items() if key not in copies}, shared, (copies, metadata)


def with_own_state(
    folder: Path, document: CheckpointDocument, world_size: int | None = None, *, new_data: bool = False
) -> tuple[Json, dict[str, Tensor]]:
    """The whole skeleton of a checkpoint for this process of `world_size` (None: as many as there are), and the tensors that
    its own file holds. With `new_data` the position in the data does not count.

    Where another number of processes wrote it, that of process 0 counts for all, and the log says of what.

    Raises:
        CheckpointError: the file is damaged; or the position in the data is each process's own, and they were others.
    """
    now, then = world_size or context.world_size(), document.world_size
    name = storage.own_state_name(context.rank() if now == then else 0)
    if name not in document.files:
        return document.state, {}
    check_files(folder, [name], document)
    with foreign_file(folder / name, "state of one process", CheckpointError, DAMAGED):
        with safetensors.safe_open(str(folder / name), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it cannot be iterated over
            stored = json.loads(file.metadata()["state"])
        differing = [tuple(place) for place in stored["differing"]]
        skeleton = document.state
        for place, node in stored["own"]:
            skeleton = _with(skeleton, tuple(place), node)
    if new_data:
        differing = [place for place in differing if place != _DATA]
    if now != then and _DATA in differing:
        found = f"its dataloader had a state of its own on each of {then} processes; this run has {now}"
        allowed = f"{then} processes, or a dataloader whose state is the same on all of them"
        fix = f"resume with {then} processes, or start the data afresh: --resume latest --new-data"
        raise CheckpointError(Problem(found, str(folder), allowed, fix))
    if now != then and differing:
        logger.warning(
            "%s was not the same on the %d processes that wrote the checkpoint: this run, of another number, goes on with "
            "that of process 0",
            "; ".join(map(_told, differing)),
            then,
        )
    return skeleton, tensors


def _entries(place: _Place, node: Json, depth: int) -> Iterator[tuple[_Place, Json]]:
    if depth and isinstance(node, dict) and node and not any(key.startswith("$") for key in node):
        for key, value in node.items():
            yield from _entries((*place, key), value, depth - 1)
    else:
        yield place, node


def _digest(node: Json, tensors: Mapping[str, Tensor]) -> _Digest:
    """Of sharded tensors only their form counts."""
    digest, sharded = hashlib.sha256(json.dumps(node).encode()), False
    for key in references(node):
        tensor = tensors[key]
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        if isinstance(tensor, DTensor):
            sharded = True
        else:
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return _Digest(digest.hexdigest(), sharded)


def _without(tree: Json, place: _Place) -> Json:
    assert isinstance(tree, dict)
    rest = {key: value for key, value in tree.items() if key != place[0]}
    return rest if len(place) == 1 else {**rest, place[0]: _without(tree[place[0]], place[1:])}


def _with(tree: Any, place: _Place, node: Json) -> Json:
    return {**tree, place[0]: node if len(place) == 1 else _with(tree.get(place[0], {}), place[1:], node)}


def _told(place: _Place) -> str:
    section, *keys = place
    if section == "callbacks" and keys:
        return "".join(f"'{key}' of " for key in keys[1:]) + f"the state of callback '{keys[0]}'"
    if section == "method":
        return "".join(f"'{key}' of " for key in keys) + "the method's state"
    return f"the state of the {section}"
