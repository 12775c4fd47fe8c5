"""How much memory a run takes, from configurations alone: by role, for one process of any number of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.checkpoint.training_state import stored_tensors
from fastvideo_core.checkpoint.tree import split
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.family import RoleOutline
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.activation_bytes import EvaluationBytes, evaluation_bytes
from fastvideo_core.dispatch.run import Run
from fastvideo_core.distributed.mesh import mesh_shape
from fastvideo_core.placing.shard import blocks_of, gathers_in_bfloat16, prepare_blocks
from fastvideo_core.weights.lora import add_lora
from fastvideo_core.weights.parameters import trainable_by_name

_FULL, _HALF = 4, 2
"""Bytes of a float32 and of a bfloat16 number."""

_ADAMW_MOMENTS = 2

_GUIDED_HALVES = 2
"""Samples per sample of a frozen role's evaluation: with guidance both halves go through the network in one call."""

_GATHERED_AHEAD = 2
"""Blocks whose gathered weights live at once: the one that computes, and the next."""

_INDEX_BYTES = 290
"""Of a tensor in the index and the sums of a checkpoint, besides its name."""

_STREAMS, _STREAM_BYTES = 8, 5056
"""Random streams of a process in a checkpoint, about, and the state of one."""


@dataclass(frozen=True)
class RoleEstimate:
    """What one role takes in one process, in bytes; of several processes, the one that holds most.

    `parameters` (numbers) and `checkpoint` are over all processes; weights (in host memory when `offloaded`), gradients,
    optimizer and ema are of the process' shards; `gathered` are whole blocks, while they compute on several processes;
    `evaluation` is None when the family does not say how its network is called.
    """

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    ema: int
    gathered: int
    evaluation: EvaluationBytes | None
    checkpoint: int
    offloaded: bool = False

    @property
    def activations(self) -> int:
        """The most that evaluations of this role hold: with a graph where it is trained, else without."""
        return 0 if self.evaluation is None else max(self.evaluation.forward, self.evaluation.activations)

    @property
    def state(self) -> int:
        """Bytes on the device that live from step to step."""
        return (0 if self.offloaded else self.weights) + self.optimizer + self.ema


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes: its roles by name, and how many processes share it."""

    roles: Mapping[str, RoleEstimate]
    processes: int

    @property
    def knows_activations(self) -> bool:
        """Whether every role's family says how its network is called."""
        return all(role.evaluation is not None for role in self.roles.values())

    @property
    def host(self) -> int:
        """Bytes of offloaded weights in the host's memory, per process."""
        return sum(role.weights for role in self.roles.values() if role.offloaded)

    @property
    def peak(self) -> int:
        """The most that one process holds on its device.

        One graph lives at a time. While it does, other roles are evaluated without one; while it is taken back, gradients
        of the roles before may be waiting for the optimizers' steps.
        """
        gradients = sum(role.gradients for role in self.roles.values())
        moments = [gradients]
        for name, role in self.roles.items():
            if (found := role.evaluation) is None:
                continue
            if not found.with_gradients:
                moments.append(gradients + found.forward + role.gathered)
                continue
            others = [other for key, other in self.roles.items() if key != name]
            beside = max((other.evaluation.forward + other.gathered for other in others if other.evaluation), default=0)
            waiting = gradients - role.gradients
            own = found.with_gradients if self.processes == 1 else found.activations + role.gradients
            moments += [waiting + own + role.gathered, waiting + found.held + beside]
        return sum(role.state for role in self.roles.values()) + max(moments)

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint's folder."""
        return sum(role.checkpoint for role in self.roles.values()) + self.processes * _STREAMS * _STREAM_BYTES


def estimate_run(run: Run) -> RunEstimate | None:
    """The estimate of a run; None when a family has no outline of its networks.

    What a method makes besides the roles of run.yaml (the discriminator's heads of dmd2) is not among it, nor are the
    VAE and the text encoder, which are used before the first step and for validation.

    Raises:
        UserError: a path, a size or LoRA adapters do not fit.
    """
    training = run.cfg.training
    _, shards = mesh_shape(training.hsdp_replicate_dim, training.hsdp_shard_dim, training.num_gpus)
    roles = {}
    for name in run.cfg.roles:
        outline = run.outline(name)
        if outline is None:
            return None
        roles[name] = _estimate_role(run.cfg, outline, shards=shards)
    return RunEstimate(roles, training.num_gpus)


def _estimate_role(cfg: RunConfig, outline: RoleOutline, *, shards: int) -> RoleEstimate:
    """The estimate of one role, with parameters on meta, whose weights so many processes share."""
    handle, training = outline.handle, cfg.training
    if (lora := cfg.roles[handle.name].lora) is not None:
        add_lora(handle, lora)
    handle.set_trainable()
    parameters = [parameter for _, parameter in handle.named_parameters()]
    trained = handle.trainable_parameters()
    buffers = sum(buffer.nbytes for module in handle.modules.values() for buffer in module.buffers())
    averaged = cfg.callbacks.get("ema")
    ema = isinstance(averaged, EMAConfig) and handle.name in averaged.roles
    halved = handle.bfloat16_classes if gathers_in_bfloat16(handle, training) else ()
    return RoleEstimate(
        parameters=sum(p.numel() for p in parameters),
        weights=sum(_share_bytes(p, shards) for p in parameters) + buffers,
        gradients=sum(_share_bytes(p, shards) for p in trained),
        optimizer=sum(_share_bytes(p, shards) * _ADAMW_MOMENTS + _FULL for p in trained),
        ema=sum(_share(p, shards) * _FULL for p in trained) if ema else 0,
        gathered=_gathered_bytes(handle, halved) if training.num_gpus > 1 else 0,
        checkpoint=_checkpoint_bytes(handle, ema=ema) if handle.trainable else 0,
        offloaded=training.frozen_cpu_offload and not handle.trainable and training.num_gpus > 1,
        evaluation=_evaluation(cfg, outline),
    )


def _share(parameter: Tensor, shards: int) -> int:
    """Numbers of a parameter in the process that holds most: FSDP cuts along the first dimension."""
    if not parameter.ndim or shards == 1:
        return parameter.numel()
    return math.ceil(parameter.shape[0] / shards) * (parameter.numel() // max(1, parameter.shape[0]))


def _share_bytes(parameter: Tensor, shards: int) -> int:
    return _share(parameter, shards) * parameter.element_size()


def _gathered_bytes(handle: RoleHandle, halved: tuple[type[nn.Module], ...]) -> int:
    """Whole weights of the blocks that live at once and of what is in no block; with their gradients where they train."""
    found = 0
    for module in handle.modules.values():
        blocks = [block for _, block in blocks_of(handle, module)]
        outside = sum(p.nbytes for p in module.parameters()) - sum(p.nbytes for b in blocks for p in b.parameters())
        largest = max((_gathered_size(halved, block) for block in blocks), default=0)
        found += outside + _GATHERED_AHEAD * largest * (2 if handle.trainable and handle.lora is None else 1)
    return found


def _gathered_size(halved: tuple[type[nn.Module], ...], block: nn.Module) -> int:
    parts = [part for part in block.modules() if isinstance(part, halved)]
    in_bfloat16 = {id(parameter) for part in parts for parameter in part.parameters(recurse=False)}
    return sum(p.numel() * (_HALF if id(p) in in_bfloat16 else p.element_size()) for p in block.parameters())


def _evaluation(cfg: RunConfig, outline: RoleOutline) -> EvaluationBytes | None:
    if outline.evaluate is None:
        return None
    handle, batch = outline.handle, cfg.training.train_batch_size
    prepare_blocks(handle, cfg.training.model_copy(update={"enable_torch_compile": False}))
    samples = batch if handle.trainable else batch * _GUIDED_HALVES
    return evaluation_bytes(handle, outline.evaluate, samples=samples)


def _checkpoint_bytes(handle: RoleHandle, *, ema: bool) -> int:
    """Of the tensors that a checkpoint keeps of a trained role, and of their names in its documents."""
    weights = {name: stored_tensors(handle, module) for name, module in handle.modules.items()}
    trained = trainable_by_name(handle.modules)
    parameters = {f"{handle.name}.{key}.{fqn}": p for key, by_fqn in trained.items() for fqn, p in by_fqn.items()}
    step = torch.empty((), device="meta")
    moments = {name: {"step": step, "exp_avg": p, "exp_avg_sq": p} for name, p in parameters.items()}
    tree: dict[str, Any] = {
        "roles": {handle.name: weights},
        "optimizers": {handle.name: {"adamw": {"param_groups": [{"params": list(parameters)}], "state": moments}}},
    }
    if ema:
        tree["callbacks"] = {"ema": {"shadow": {handle.name: trained}}}
    tensors, skeleton = split(tree)
    documents = len(json.dumps({"state": skeleton}, indent=1))
    index = sum(_INDEX_BYTES + 2 * len(key) for key in tensors)
    sizes = (t.numel() * (_FULL if key.startswith("callbacks.") else t.element_size()) for key, t in tensors.items())
    return sum(sizes) + documents + index
