"""State that differs from process to process (the loader's, say): each process keeps its own in a file of its own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.document import CheckpointDocument, check_files
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
    entries = {
        place: node for name, depth in _DEPTHS.items() for place, node in _entries((name,), skeleton[name], depth)
    }
    digests: list[dict[_Place, tuple[str, bool]]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(digests, {place: _digest(node, tensors) for place, node in entries.items()}, group=group)
    places = sorted({place for one in digests for place in one})
    differing = [place for place in places if len({one.get(place) for one in digests}) > 1]
    if mixed := [place for place in differing if any(one.get(place, ("", False))[1] for one in digests)]:
        fix = "keep what differs under a key of its own, or make it the same on all of them"
        found = "a sharded tensor is kept together with something that is not the same on all processes"
        raise ContractError([Problem(found, _told(place), fix=fix) for place in mixed])
    if not differing:
        return tensors, skeleton, None
    own = {place: entries[place] for place in differing if place in entries}
    shared: Json = skeleton
    for place in own:
        shared = _without(shared, place)
    keys = {key for node in own.values() for key in references(node)}
    return {key: value for key, value in tensors.items() if key not in keys}, shared, _content(differing, own, tensors)


def with_own_state(
    folder: Path, document: CheckpointDocument, world_size: int | None = None, *, new_data: bool = False
) -> tuple[Json, dict[str, Tensor]]:
    """The whole skeleton of a checkpoint for this process, and the tensors that its own file holds.

    Where another number of processes wrote it, that of process 0 counts for all, and the log says of what.

    Args:
        world_size: processes of the run; None for those that there are.
        new_data: whether the position in the data is not wanted.

    Raises:
        CheckpointError: the file is damaged; or the position in the data is each process's own, and they were others.
    """
    world_size = world_size or context.world_size()
    same_world = document.world_size == world_size
    name = storage.own_state_name(context.rank() if same_world else 0)
    if name not in document.files:
        return document.state, {}
    path = folder / name
    check_files(folder, [name], document)
    with foreign_file(path, "state of one process", CheckpointError, "use another checkpoint; this one is damaged"):
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it cannot be iterated over
            stored = json.loads(file.metadata()["state"])
        differing = [tuple(place) for place in stored["differing"]]
        skeleton = document.state
        for place, node in stored["own"]:
            skeleton = _with(skeleton, tuple(place), node)
    if not same_world:
        counting = [place for place in differing if not (new_data and place == _DATA)]
        _check_other_world(folder, document, counting, world_size)
    return skeleton, tensors


def _check_other_world(folder: Path, document: CheckpointDocument, differing: list[_Place], now: int) -> None:
    then = document.world_size
    if _DATA in differing:
        raise CheckpointError(
            Problem(
                found=f"its dataloader had a state of its own on each of {then} processes; this run has {now}",
                where=str(folder),
                allowed=f"{then} processes, or a dataloader whose state is the same on all of them",
                fix=f"resume with {then} processes, or start the data afresh: --resume latest --new-data",
            )
        )
    if not differing:
        return
    logger.warning(
        "%s was not the same on the %d processes that wrote the checkpoint: this run, of another number, goes on with "
        "that of process 0",
        "; ".join(map(_told, differing)),
        then,
    )


# --- entries ----------------------------------------------------------------------------------------------------------


def _entries(place: _Place, node: Json, depth: int) -> Iterator[tuple[_Place, Json]]:
    if depth and isinstance(node, dict) and node and not any(key.startswith("$") for key in node):
        for key, value in node.items():
            yield from _entries((*place, key), value, depth - 1)
    else:
        yield place, node


def _digest(node: Json, tensors: Mapping[str, Tensor]) -> tuple[str, bool]:
    """What tells an entry from another (of sharded tensors only their form), and whether it has a sharded tensor."""
    digest, sharded = hashlib.sha256(json.dumps(node).encode()), False
    for key in references(node):
        tensor = tensors[key]
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        if isinstance(tensor, DTensor):
            sharded = True
        else:
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest(), sharded


def _content(differing: list[_Place], own: Mapping[_Place, Json], tensors: Mapping[str, Tensor]) -> OwnState:
    copies = {
        key: torch.empty_like(tensors[key], device="cpu", memory_format=torch.contiguous_format).copy_(tensors[key])
        for node in own.values()
        for key in references(node)
    }
    return copies, {"state": json.dumps({"differing": differing, "own": list(own.items())}, allow_nan=False)}


def _without(tree: Json, place: _Place) -> Json:
    assert isinstance(tree, dict)
    rest = {key: value for key, value in tree.items() if key != place[0]}
    return rest if len(place) == 1 else {**rest, place[0]: _without(tree[place[0]], place[1:])}


def _with(tree: Any, place: _Place, node: Json) -> Json:
    return {**tree, place[0]: node if len(place) == 1 else _with(tree.get(place[0], {}), place[1:], node)}


def _told(place: _Place) -> str:
    if place[0] == "callbacks" and len(place) > 1:
        key = f"'{place[2]}' of " if len(place) > 2 else ""
        return f"{key}the state of callback '{place[1]}'"
    if place[0] == "method":
        return f"'{place[1]}' of the method's state" if len(place) > 1 else "the method's state"
    return f"the state of the {place[0]}"
