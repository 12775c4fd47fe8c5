"""A run in words: what will happen before the first step, and what was written after the last."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.stateful import Stateful

from fastvideo_core.checkpoint import storage
from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.distributed import context
from fastvideo_core.distributed.context import Mesh, mesh_shape
from fastvideo_core.errors import CheckpointError


def title(runtime: DistillRuntime) -> str:
    """Method, family and steps."""
    recipe, args = runtime.cfg.recipe, runtime.training_args
    before = f", goes on after step {runtime.start_step}" if runtime.start_step else ""
    return f"{recipe.method} of {recipe.family}: {args.max_train_steps} steps{before}"


def plan(runtime: DistillRuntime) -> dict[str, Any]:
    """What will happen, by name; values are texts or lists of texts."""
    args = runtime.training_args
    mixed = "bfloat16, weights and moments of trained roles in float32"
    validation = f"every {args.validation_steps} steps, prompts of {args.validation_dataset_file}"
    return {
        "roles": [_role(handle, runtime.cfg) for handle in runtime.method.bundle],
        "precision": mixed if args.mixed_precision == "bf16" else "float32",
        "processes": processes(args),
        "batch": _batch(args),
        "data": _data(args, runtime.dataloader),
        "checkpoints": _checkpoints(args),
        "validation": validation if args.log_validation else "none",
        "metrics": ", ".join([str(Path(args.output_dir) / "metrics.jsonl"), *args.trackers]),
    }


def outcome(runtime: DistillRuntime, plugin_files: Sequence[str] = ()) -> dict[str, Any]:
    """Where everything is, and the next commands to type, with the files of --plugin."""
    folder = Path(runtime.training_args.output_dir)
    written: dict[str, Any] = {"log": str(folder / "metrics.jsonl")}
    try:
        written["checkpoint"] = str(storage.resolve_checkpoint(folder))
    except CheckpointError:
        return written
    if (folder / "validation").is_dir():
        written["videos"] = str(folder / "validation")
    typed, offers = shlex.quote(str(folder)), runtime.run.family.offers()
    plugins = "".join(f" --plugin {shlex.quote(file)}" for file in plugin_files)
    commands = {"sampler": f'sample {typed} --prompt "..."{plugins}', "export": f"export {typed} OUT{plugins}"}
    offered = [command for name, command in commands.items() if name in offers]
    written["next"] = [f"fastvideo-distill {command}" for command in (*offered, f"report {typed}")]
    return written


def _role(handle: RoleHandle, cfg: RunConfig) -> str:
    """A role's parameters, how many of them are trained, and where they come from."""
    sizes = [(parameter.numel(), parameter.requires_grad) for _, parameter in handle.named_parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    how = "frozen" if not trained else "trained" if trained == total else f"{_millions(trained)} trained"
    if (role := cfg.roles.get(handle.name)) is not None and role.lora is not None:
        how += f" (adapters of rank {role.lora.rank})"
    return f"{handle.name}: {_millions(total)} parameters, {how}" + (f", from {role.path}" if role else "")


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M" if count < 1e9 else f"{count / 1e9:,.2f} B"


def processes(args: TrainingArgs) -> str:
    """How many processes on what, and their shards."""
    device = context.device()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    if context.world_size() == 1:
        return f"1, on {where}"
    replicas, shards = mesh_shape(args, context.world_size())
    shared = f"{context.world_size()}, on {where}; every role in {shards} shards"
    return f"{shared}, {replicas} replicas" if replicas > 1 else shared


def _batch(args: TrainingArgs) -> str:
    groups = Mesh.current(args).data_size
    size, together = args.train_batch_size * args.gradient_accumulation_steps * groups, args.sequence_parallel
    each, several = ("a process", "processes") if together == 1 else (f"for {together} processes", "such groups")
    more = {"rounds": args.gradient_accumulation_steps, several: groups}
    parts = [f"{args.train_batch_size} {each}", *(f"{count} {name}" for name, count in more.items() if count > 1)]
    return f"{size} samples a step" + (f" ({' x '.join(parts)})" if len(parts) > 1 or together > 1 else "")


def _data(args: TrainingArgs, loader: Any) -> str:
    if not hasattr(loader, "batches_per_epoch"):  # of one process
        keeps = isinstance(loader, Stateful)
        return "the family's own" + ("" if keeps else "; it keeps no position: a resumed run starts it over")
    steps = loader.batches_per_epoch / args.gradient_accumulation_steps
    epochs = args.max_train_steps / steps
    paths = ", ".join(source.path for source in args.data_sources.values())
    return f"{paths}: {loader.num_samples:,} samples, {steps:,.1f} steps an epoch, {epochs:,.1f} epochs in all"


def _checkpoints(args: TrainingArgs) -> str:
    every, limit = args.training_state_checkpointing_steps, args.checkpoints_total_limit
    moments = [f"every {every} steps"] if every else []
    if args.log_validation and context.world_size() > 1:
        moments.append("before the first validation")
    return f"{', '.join([*moments, 'at the end'])}{f', the newest {limit} kept' if limit else ''}, in {args.output_dir}"
