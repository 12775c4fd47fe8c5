"""The random state of one process: the method's streams, the adapter's generators, torch's own."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import HasRngGenerators
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, Problem

_METHOD, _ADAPTER, _CPU, _CUDA = "method/", "adapter/", "torch/cpu", "torch/cuda"


def collect_rng(method: DistillMethod) -> dict[str, Tensor]:
    """uint8 tensors by name. torch's default generators are among them because a network's dropout draws from them."""
    state = {_METHOD + name: value for name, value in method.rng.state_dict().items()}
    state.update({_ADAPTER + name: generator.get_state() for name, generator in _generators(method).items()})
    state[_CPU] = torch.get_rng_state()
    if context.device().type == "cuda":
        state[_CUDA] = torch.cuda.get_rng_state(context.device())
    return state


def restore_rng(method: DistillMethod, state: dict[str, Tensor], where: str) -> None:
    """Sets every generator as `collect_rng` found it; raises CheckpointError when the adapter has others now."""
    generators = _generators(method)
    stored = {name.removeprefix(_ADAPTER) for name in state if name.startswith(_ADAPTER)}
    if stored != set(generators):
        then, now = (", ".join(sorted(names)) or "none" for names in (stored, generators))
        found = f"it holds the adapter's random generators {then}; this run has {now}"
        fix = "resume with the version of the model family that wrote the checkpoint"
        raise CheckpointError(Problem(found, where, fix=fix))
    method.rng.load_state_dict(
        {name.removeprefix(_METHOD): value for name, value in state.items() if name.startswith(_METHOD)}
    )
    for name, generator in generators.items():
        generator.set_state(state[_ADAPTER + name])
    torch.set_rng_state(state[_CPU])
    if _CUDA in state and context.device().type == "cuda":
        torch.cuda.set_rng_state(state[_CUDA], context.device())


def rng_of_other_world(method: DistillMethod, rank_0: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    """The random state of this process for a checkpoint of `step` that another number of processes wrote, for `restore_rng`.

    Shared streams go on where `rank_0` had them. Everything that differs by rank starts anew from (seed, step, number
    of data ranks, data rank, name): no numbers of before are drawn again, and resuming twice gives the same run.
    """
    generators = _generators(method)
    state = {}
    for name, value in rank_0.items():
        if name.startswith(f"{_METHOD}shared/"):
            state[name] = value
            continue
        device = torch.device("cpu")
        if name.startswith(_METHOD):
            device = method.rng.device
        elif name.startswith(_ADAPTER) and name.removeprefix(_ADAPTER) in generators:
            device = generators[name.removeprefix(_ADAPTER)].device
        elif name == _CUDA:
            device = context.device()
        source = f"{name} from step {step} with {method.mesh.data_size} processes"
        generator = torch.Generator(device)
        generator.manual_seed(stream_seed(method.rng.seed, source, method.mesh.data_rank))
        state[name] = generator.get_state()
    return state


def _generators(method: DistillMethod) -> dict[str, torch.Generator]:
    return method.adapter.get_rng_generators() if isinstance(method.adapter, HasRngGenerators) else {}
