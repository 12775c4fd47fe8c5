"""What differs from process to process: random state, and what of a loader, method or callback does. Each rank has its files."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from fastvideo_core.checkpoint.storage import DAMAGED, CheckpointDocument, check_files
from fastvideo_core.checkpoint.tree import Json, references
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.adapter import HasRngGenerators
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, ContractError, Problem, foreign_file

logger = logging.getLogger(__name__)

_Place: TypeAlias = tuple[str, ...]
RankFile: TypeAlias = tuple[dict[str, Tensor], dict[str, str]]  # tensors and metadata of one rank's file

_METHOD, _ADAPTER = "method/", "adapter/"  # what names of random states begin with
_DATA: _Place = ("dataloader",)
_DEPTHS = {"method": 1, "callbacks": 2, "dataloader": 0}
"""Sections that may differ from process to process, and how deep their entries lie: a key of the method, a key of a callback, the
whole dataloader. All other sections are the same on all processes."""


def file_of(kind: str, rank: int) -> str:
    """The file of one rank, by its path in the checkpoint: `rng`, or what is its `own` (there for all ranks or none)."""
    return f"{kind}/rank-{rank:05d}.safetensors"


def read_file(folder: Path, document: CheckpointDocument, kind: str, rank: int) -> RankFile:
    """Tensors and metadata of a rank's file; raises CheckpointError when it is damaged."""
    name = file_of(kind, rank)
    check_files(folder, [name], document)
    with (
        foreign_file(folder / name, "state of one process", CheckpointError, DAMAGED),
        safetensors.safe_open(str(folder / name), framework="pt") as file,
    ):
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no iterable


# --- random state -----------------------------------------------------------------------------------------------------


def collect_rng(method: DistillMethod) -> dict[str, Tensor]:
    """uint8 tensors by name: the method's streams, the adapter's generators, and torch's, from which dropout layers draw."""
    streams = {_METHOD + name: value for name, value in method.rng.state_dict().items()}
    return streams | {name: generator.get_state() for name, generator in _generators(method).items()}


def restore_rng(method: DistillMethod, state: dict[str, Tensor]) -> None:
    """Sets every generator as `collect_rng` found it; raises CheckpointError when the adapter has others now."""
    generators = _generators(method)
    then, now = ({name for name in names if name.startswith(_ADAPTER)} for names in (state, generators))
    if then != now:
        one, other = (", ".join(sorted(names)) or "none" for names in (then, now))
        found = f"the checkpoint holds the random generators {one}; this run has {other}"
        raise CheckpointError(Problem(found, fix="resume with the version of the model family that wrote it"))
    streams = {name.removeprefix(_METHOD): value for name, value in state.items() if name.startswith(_METHOD)}
    method.rng.load_state_dict(streams)
    for name in generators.keys() & state.keys():
        generators[name].set_state(state[name])


def rng_of_other_world(method: DistillMethod, rank_0: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    """The random state of this process for a checkpoint of `step` that another number of processes wrote, for `restore_rng`.

    Shared streams go on where `rank_0` had them. Everything that differs by rank starts anew from (seed, step, number
    of data ranks, data rank, name): no numbers of before are drawn again, and resuming twice gives the same run.
    """
    state, generators = {}, _generators(method)
    for name, value in rank_0.items():
        if name.startswith(f"{_METHOD}shared/"):
            state[name] = value
            continue
        source = f"{name} from step {step} with {method.mesh.data_size} processes"
        generator = torch.Generator(generators[name].device if name in generators else method.rng.device)
        generator.manual_seed(stream_seed(method.rng.seed, source, method.mesh.data_rank))
        state[name] = generator.get_state()
    return state


def _generators(method: DistillMethod) -> dict[str, torch.Generator]:
    """The adapter's, and torch's own."""
    own = method.adapter.get_rng_generators() if isinstance(method.adapter, HasRngGenerators) else {}
    generators = {_ADAPTER + name: generator for name, generator in own.items()}
    generators["torch/cpu"] = torch.default_generator
    if (device := context.device()).type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch makes its generators no sooner
        generators["torch/cuda"] = torch.cuda.default_generators[device.index]
    return generators


# --- the run's state --------------------------------------------------------------------------------------------------


def separate(
    tensors: dict[str, Tensor], skeleton: Json, group: dist.ProcessGroup | None
) -> tuple[dict[str, Tensor], Json, RankFile | None]:
    """Takes out of a split state tree the entries that differ from process to process (a sharded tensor counts as the same for
    all), for this rank's own file; None, on all processes, when nothing differs. Collective.

    Raises ContractError where an entry that differs has a sharded tensor in it.
    """
    if group is None:
        return tensors, skeleton, None
    assert isinstance(skeleton, dict)
    sections = (_entries((section,), skeleton[section], depth) for section, depth in _DEPTHS.items())
    entries = {place: node for section in sections for place, node in section}
    digests = context.gathered({place: _digest(node, tensors) for place, node in entries.items()}, group)
    places = sorted({place for one in digests for place in one})
    differing = [place for place in places if len({one.get(place) for one in digests}) > 1]
    if mixed := [place for place in differing if any(one.get(place, ("", False))[1] for one in digests)]:
        fix = "keep what differs under a key of its own, or make it the same on all of them"
        found = "a sharded tensor is kept together with something that is not the same on all processes"
        raise ContractError([Problem(found, ".".join(place), fix=fix) for place in mixed])
    if not differing:
        return tensors, skeleton, None
    own = [(place, entries[place]) for place in differing if place in entries]
    for place, _ in own:
        del _parent(skeleton, place)[place[-1]]
    keys = [key for _, node in own for key in references(node)]
    copies = {key: tensors[key].to("cpu", copy=True, memory_format=torch.contiguous_format) for key in keys}
    metadata = {"state": json.dumps({"differing": differing, "own": own}, allow_nan=False)}
    return {key: tensor for key, tensor in tensors.items() if key not in copies}, skeleton, (copies, metadata)


def same_rank(document: CheckpointDocument, training: TrainingArgs) -> int | None:
    """Which process that wrote a checkpoint had the samples of this one; None where they were shared out among another number."""
    then, now, rank = document.sequence_parallel, training.sequence_parallel, context.rank()
    if document.world_size * now != training.num_gpus * then:
        return None
    return rank // now * then + min(rank % now, then - 1)


def with_rank_state(
    folder: Path, document: CheckpointDocument, training: TrainingArgs
) -> tuple[Json, dict[str, Tensor]]:
    """The whole skeleton of a checkpoint for this process, and the tensors of its own file; process 0's counts for all, and the
    log says of what, where samples were shared out among another number.

    Raises CheckpointError where the file is damaged; or the position in the data is each process's own, and they were others.
    """
    then, skeleton, processes = document.world_size, document.state, training.num_gpus
    same = same_rank(document, training)
    if file_of("own", same or 0) not in document.files:
        return skeleton, {}
    tensors, metadata = read_file(folder, document, "own", same or 0)
    with foreign_file(folder / file_of("own", same or 0), "state of one process", CheckpointError, DAMAGED):
        stored = json.loads(metadata["state"])
        differing = [tuple(place) for place in stored["differing"]]
        for place, node in stored["own"]:
            _parent(skeleton, place)[place[-1]] = node
    if same is not None:
        return skeleton, tensors
    if _DATA in differing and not training.resume_with_new_data:
        found = f"its dataloader had a state of its own on each of {then} processes; this run has {processes}"
        allowed = f"{then} processes, or a dataloader whose state is the same on all of them"
        fix = f"resume with {then} processes, or start the data afresh: --resume latest --new-data"
        raise CheckpointError(Problem(found, str(folder), allowed, fix))
    if others := [".".join(place) for place in differing if place != _DATA]:
        text = "%s was not the same on the %d processes that wrote the checkpoint: this run, of another number, goes on with "
        logger.warning(text + "that of process 0", ", ".join(others), then)
    return skeleton, tensors


def _entries(place: _Place, node: Json, depth: int) -> Iterator[tuple[_Place, Json]]:
    if depth and isinstance(node, dict) and node and not any(key.startswith("$") for key in node):
        for key, value in node.items():
            yield from _entries((*place, key), value, depth - 1)
    else:
        yield place, node


def _digest(node: Json, tensors: Mapping[str, Tensor]) -> tuple[str, bool]:
    """What tells an entry from another (of sharded tensors only their form counts), and whether it has a sharded tensor."""
    digest, sharded = hashlib.sha256(json.dumps(node).encode()), False
    for key in references(node):
        tensor = tensors[key]
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        if isinstance(tensor, DTensor):
            sharded = True
        else:
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest(), sharded


def _parent(tree: Any, place: Sequence[str]) -> dict[str, Json]:
    """What the entry at `place` stands in, or is to stand in."""
    for key in place[:-1]:
        tree = tree.setdefault(key, {})
    parent: dict[str, Json] = tree
    return parent
