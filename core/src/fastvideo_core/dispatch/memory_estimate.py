"""How much memory a run takes, from configurations alone: by role, for one process of any number of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.checkpoint.training_state import stored_tensors
from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.family import RoleOutline
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.activation_bytes import EvaluationBytes, evaluation_bytes, host_copies
from fastvideo_core.dispatch.examine import Run
from fastvideo_core.distributed.context import EstimatedGroup, mesh_shape
from fastvideo_core.placing.shard import blocks_of, gathers_in_bfloat16, on_host, prepare_blocks, split_tokens
from fastvideo_core.weights.lora import add_lora

_FULL, _HALF = 4, 2  # bytes of a float32 and of a bfloat16 number
_ADAMW_MOMENTS = 2
_GUIDED_HALVES = 2  # samples that a frozen role's network gets for each: with guidance both halves go in one call
_GATHERED_AHEAD = 2  # blocks whose gathered weights live at once: the one that computes, and the next
_ENTRY_BYTES = 600  # of a tensor in the index and the documents of a checkpoint, about (measured for Wan 1.3B and 14B)


@dataclass(frozen=True)
class RoleEstimate:
    """What one role takes in one process, in bytes; of several processes, the one that holds most.

    `checkpoint` is over all processes; weights (of which `offloaded` are in host memory), gradients, optimizer and ema are of the
    process' shards; `gathered` are whole blocks, while they compute, of what is sharded or offloaded; `evaluation` is None when
    the family does not say how its network is called.
    """

    weights: int
    gradients: int
    optimizer: int
    ema: int
    gathered: int
    evaluation: EvaluationBytes | None
    checkpoint: int
    offloaded: int = 0

    @property
    def activations(self) -> int:
        """The most that evaluations of this role hold: with a graph where it is trained, else without."""
        return 0 if self.evaluation is None else max(self.evaluation.forward, self.evaluation.activations)

    @property
    def state(self) -> int:
        """Bytes on the device that live from step to step."""
        return self.weights - self.offloaded + self.optimizer + self.ema


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
        """Bytes of weights and activations in the host's memory, per process."""
        graphs = [role.evaluation.on_host for role in self.roles.values() if role.evaluation is not None]
        return sum(role.offloaded for role in self.roles.values()) + max(graphs, default=0)

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
            own = found.with_gradients if self.processes == 1 else found.activations + role.gradients
            moments.append(gradients - role.gradients + max(own + role.gathered, found.held + beside))
        return sum(role.state for role in self.roles.values()) + max(moments)

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint's folder."""
        return sum(role.checkpoint for role in self.roles.values())


def estimate_run(run: Run, known: Mapping[str, EvaluationBytes | None] | None = None) -> RunEstimate | None:
    """The estimate of a run; None when a family has no outline of its networks. Roles that are `known` are not evaluated.

    What a method makes besides the roles of run.yaml and their copies (dmd2's discriminator) is not among it, nor are the VAE
    and the text encoder, which are used before the first step and for validation. Raises UserError where a path, a size or LoRA
    adapters do not fit.
    """
    training = run.cfg.training
    _, shards = mesh_shape(training, training.num_gpus)
    roles = {}
    originals = {**dict(zip(run.cfg.roles, run.cfg.roles, strict=True)), **run.method.copied_roles(run.cfg)}
    for name, original in originals.items():
        if (outline := run.outline(original)) is None:
            return None
        if name != original:
            copied = replace(outline.handle, name=name, copy_of=original, trainable=False, saved=True)
            outline = replace(outline, handle=copied)
        roles[name] = _estimate_role(run.cfg, outline, shards=shards, known=known or {})
    return RunEstimate(roles, training.num_gpus)


def _estimate_role(cfg: RunConfig, outline: RoleOutline, *, shards: int, known: Mapping[str, Any]) -> RoleEstimate:
    """The estimate of one role, with parameters on meta, whose weights so many processes share."""
    handle, training = outline.handle, cfg.training
    if (lora := cfg.roles[handle.copy_of or handle.name].lora) is not None:
        add_lora(handle, lora)
    handle.set_trainable()
    trained = handle.trainable_parameters()
    parameters = [parameter for _, parameter in handle.named_parameters()]
    networks = () if handle.borrows else handle.modules.values()
    buffers = sum(buffer.nbytes for module in networks for buffer in module.buffers())
    called = handle  # what has gradients at a time
    if outline.evaluates is not None:
        called = replace(handle, modules={outline.evaluates: handle.modules[outline.evaluates]})
    host = {name: on_host(handle, name, training) for name in handle.modules}
    in_parts = [name for name, away in host.items() if away or training.num_gpus > 1]
    brought = {n: handle.modules[n] for n in [n for n in called.modules if n in in_parts] or in_parts[:1]}
    averaged = cfg.callbacks.get("ema")
    ema = isinstance(averaged, EMAConfig) and handle.name in averaged.roles
    return RoleEstimate(
        weights=sum(_share(p, shards).nbytes for p in parameters) + buffers,
        gradients=sum(_share(p, shards).nbytes for p in called.trainable_parameters()),
        optimizer=sum(_optimizer_bytes(_share(p, shards), training) for p in trained),
        ema=sum(_share(p, shards).numel() * _FULL for p in trained) if ema else 0,
        gathered=_gathered_bytes(replace(handle, modules=brought), training),
        checkpoint=_checkpoint_bytes(handle, trained, training, ema=ema) if handle.is_saved else 0,
        offloaded=0 if handle.borrows else sum(_share(p, shards).nbytes for away in host.values() for p in away),
        evaluation=known[name] if (name := handle.name) in known else _evaluation(cfg, replace(outline, handle=called)),
    )


def _share(parameter: Tensor, shards: int) -> Tensor:
    """What the process that holds most has of a parameter: FSDP cuts along the first dimension."""
    share: Tensor = torch.atleast_1d(parameter.detach()).chunk(shards)[0]  # type: ignore[no-untyped-call]
    return share


def _gathered_bytes(handle: RoleHandle, training: TrainingArgs) -> int:
    """Whole weights of the blocks that live at once and of what is in no block; with their gradients where they train."""
    halved = handle.bfloat16_classes if gathers_in_bfloat16(handle, training) else ()
    found = 0
    for name, module in handle.modules.items():
        host = on_host(handle, name, training)
        brought = host if training.num_gpus == 1 else set(module.parameters())
        parts = [part for part in module.modules() if isinstance(part, halved)]
        half = {p for part in parts for p in part.parameters(recurse=False)} - host
        blocks = [brought.intersection(block.parameters()) for _, block in blocks_of(handle, module)]
        sizes = [sum(p.numel() * (_HALF if p in half else p.element_size()) for p in block) for block in blocks]
        outside = sum(p.nbytes for p in brought.difference(*blocks))
        trained = handle.lora is None and any(p.requires_grad for p in module.parameters())
        found += outside + sum(sorted(sizes)[-_GATHERED_AHEAD:]) * (2 if trained else 1)
    return found


def _evaluation(cfg: RunConfig, outline: RoleOutline) -> EvaluationBytes | None:
    if outline.evaluate is None:
        return None
    handle, batch = outline.handle, cfg.training.train_batch_size
    prepare_blocks(handle, cfg.training.model_copy(update={"enable_torch_compile": False}), host_copies)
    samples = batch if handle.trainable else batch * _GUIDED_HALVES
    if cfg.training.num_gpus > 1 and gathers_in_bfloat16(handle, cfg.training):  # where autocast has nothing to copy
        blocks = [block for module in handle.modules.values() for _, block in blocks_of(handle, module)]
        for part in (part for block in blocks for part in block.modules() if isinstance(part, handle.bfloat16_classes)):
            part.to(torch.bfloat16)
    if (size := cfg.training.sequence_parallel) > 1:
        split_tokens([handle], EstimatedGroup(size))
    with handle.active():
        return evaluation_bytes(handle, outline.evaluate, samples=samples)


def _optimizer_bytes(parameter: Tensor, training: TrainingArgs) -> int:
    """AdamW's two moments and step; in 8 bits with a scale for each 256 numbers, where they are not few."""
    if training.optimizer == "adamw8bit" and (count := parameter.numel()) >= 4096:  # else bitsandbytes' are float32
        return _ADAMW_MOMENTS * (count + _FULL * -(-count // 256))
    return _ADAMW_MOMENTS * parameter.nbytes + _FULL


def _checkpoint_bytes(handle: RoleHandle, trained: Sequence[Tensor], training: TrainingArgs, *, ema: bool) -> int:
    """Of the tensors that a checkpoint keeps of a role: weights, the optimizer's state, averages."""
    weights = [tensor for module in handle.modules.values() for tensor in stored_tensors(handle, module).values()]
    count = len(weights) + len(trained) * (_ADAMW_MOMENTS + 1 + ema)
    of_trained = sum(_optimizer_bytes(p, training) + p.numel() * _FULL * ema for p in trained)
    return sum(tensor.nbytes for tensor in weights) + of_trained + count * _ENTRY_BYTES
