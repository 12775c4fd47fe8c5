"""`fastvideo-distill check run.yaml`: everything that can be known about a run before it starts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from fastvideo_core.cli import options
from fastvideo_core.cli.main import find_command
from fastvideo_core.launch.stdio import say

if TYPE_CHECKING:  # torch and pydantic are imported when a run is looked at, not to show help
    from fastvideo_core.dispatch.examine import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_run(parser, "check it as a run that goes on, as with train")
    fits = "say whether it fits a GPU of so many GiB, and what would make it fit (needs fastvideo-tools)"
    parser.add_argument("--gpu-memory", metavar="GIB", type=options.finite, help=fits)


def run(args: argparse.Namespace) -> int:
    """Reports every problem at once, or what the run would be."""
    from fastvideo_core.dispatch.examine import check_resume, device_warnings, examine
    from fastvideo_core.dispatch.load_run_config import load_run_config

    cfg = load_run_config(args.config, args.registry, options.overrides(args))
    resolved, found = examine(cfg, args.registry, starts=False)
    check_resume(resolved)
    roles, memory = _roles(resolved), _memory(resolved)
    warnings = [f"warning: {text}" for text in (*found.warnings, *device_warnings(cfg))]
    say(f"{args.config}: {cfg.recipe.method} of {cfg.recipe.family}, {cfg.training.max_train_steps} steps")
    for line in (*roles, *found.facts, *warnings, *memory):
        say(f"  {line}")
    say("ok")
    return 0 if args.gpu_memory is None else find_command("fits", args.registry)[0].run(args)


def _roles(run: Run) -> list[str]:
    lines = []
    whole = replace(run, cfg=run.cfg.with_roles({name: {"base_precision": None} for name in run.cfg.roles}))
    for name, role in run.cfg.roles.items():
        text = f"role {name}: {'trained' if role.trainable else 'frozen'}, {run.sources[name]}"
        text += f", frozen weights in {role.base_precision}" if role.base_precision else ""
        if role.share is not None:
            text += f", on the networks of {role.share}"
        elif (outline := whole.outline(name)) is not None:
            parameters = sum(parameter.numel() for _, parameter in outline.handle.named_parameters())
            text += f", {parameters / 1e6:,.2f} M parameters"
        lines.append(text)
    return lines


def _memory(run: Run) -> list[str]:
    from fastvideo_core.dispatch.memory_estimate import estimate_run
    from fastvideo_core.errors import UserError

    try:
        estimate = estimate_run(run)
    except UserError:
        raise
    except Exception as error:  # of a network that was called with the run's own shapes
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        why = "memory is not estimated, and training may fail likewise, as calling a network failed"
        return [f"warning: {why}: {said}"]
    if estimate is None:
        return []
    known, gpus = estimate.knows_activations, estimate.processes
    kinds = ("weights", "gradients", "optimizer", "ema", "gathered", *(["activations"] if known else []))
    shown = [kind for kind in kinds if any(getattr(role, kind) for role in estimate.roles.values())]
    peak = f"{_size(estimate.peak)}{'' if known else ', without activations'}"
    lines = [f"memory per GPU, {gpus} GPU{'s' if gpus > 1 else ''}, at its peak: {peak}", _row("role", shown)]
    for name, role in estimate.roles.items():
        lines.append(_row(name, (_size(size) if (size := getattr(role, kind)) else "-" for kind in shown)))
    if not known:
        silent = "the family does not say how a network is called (RoleOutline.evaluate; `call` of a DiffusersFamily)"
        lines.append(f"  activations are not estimated: {silent}")
    if estimate.host:
        lines.append(f"memory of the host, per process: {_size(estimate.host)} of what waits there")
    return [*lines, f"checkpoint: {_size(estimate.checkpoint)}"]


def _row(name: str, cells: Iterable[str]) -> str:
    return "  " + " | ".join(f"{cell:>11}" for cell in (name, *cells))


def _size(size: float) -> str:
    power = min(max(0, int(size).bit_length() - 1) // 10, 3)
    return f"{size / 1024**power:.2f} {('B', 'KiB', 'MiB', 'GiB')[power]}"
