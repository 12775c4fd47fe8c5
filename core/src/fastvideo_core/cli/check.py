"""`fastvideo-distill check run.yaml`: everything that can be known before weights are loaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastvideo_core.cli import resume_options
from fastvideo_core.launch.stdio import say

if TYPE_CHECKING:  # torch and pydantic are imported when a file is checked, not to show help
    from fastvideo_core.config.run import RunConfig
    from fastvideo_core.contracts.validator import ValidationPrompt
    from fastvideo_core.errors import Problem
    from fastvideo_core.registry.registry import PluginRegistry
    from fastvideo_data.data_set import EncodedBy
    from fastvideo_data.loading.loader import ParquetLoader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `check`."""
    parser.add_argument("config", help="the run's run.yaml")
    resume_options.add_arguments(parser, "check it as a run that goes on, as with train")


def run(args: argparse.Namespace) -> int:
    """Reports every problem at once, or what the run would be."""
    from fastvideo_core.config.check import run_notes
    from fastvideo_core.dispatch import preflight
    from fastvideo_core.dispatch.load import load_run_config
    from fastvideo_core.errors import ConfigError, UserError

    registry: PluginRegistry = args.registry
    cfg = load_run_config(args.config, registry, resume_options.overrides(args))
    problems: list[Problem] = [*preflight.output_problems(cfg), *preflight.login_problems(cfg)]
    lines: list[str] = []
    inputs = _Inputs()
    for part in (_plugins, _roles, _data, _prompts, _resume):
        try:
            lines += part(cfg, registry, inputs)
        except UserError as error:
            problems += error.problems
    if inputs.roles_are_fine:
        problems += preflight.input_problems(cfg, inputs.prompts, inputs.rows)
    if not problems:
        findings = preflight.compare_encoders(cfg, inputs.made_by, download=False)
        problems += findings.problems
        notes = [*inputs.notes, *run_notes(cfg), *preflight.device_notes(cfg), *preflight.size_notes(cfg, inputs.rows)]
        notes += findings.notes
        lines += [f"warning: {note}" for note in notes]
        problems += _resolve(cfg)
    if problems:
        raise ConfigError(problems)
    lines += _memory(cfg, registry, inputs)
    say(f"{args.config}: {cfg.recipe.method} of {cfg.recipe.family}, {cfg.training.max_train_steps} steps")
    for line in lines:
        say(f"  {line}")
    say("ok")
    return 0


@dataclass
class _Inputs:
    """What the parts leave for the family to look at."""

    roles_are_fine: bool = False
    notes: Sequence[str] = ()
    prompts: Sequence[ValidationPrompt] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    made_by: Sequence[EncodedBy] = ()
    loader: ParquetLoader | None = None


def _plugins(cfg: RunConfig, registry: PluginRegistry, inputs: _Inputs) -> list[str]:
    from fastvideo_core.dispatch.plugins import check_plugins

    inputs.notes = check_plugins(cfg, registry)
    return []


def _roles(cfg: RunConfig, registry: PluginRegistry, inputs: _Inputs) -> list[str]:
    from fastvideo_core.dispatch.role_weights import role_source
    from fastvideo_core.errors import Problem, UserError

    lines, problems = [], []
    for name, role in cfg.roles.items():
        plugin = registry.get("models", cfg.role_family(name))
        try:
            source = role_source(name, role)
            text = f"role {name}: {'trained' if role.trainable else 'frozen'}, {source}"
            if plugin.spec.outline is not None:
                outline: Any = registry.resolve(plugin, "outline")
                modules = outline(source.base).values()
                parameters = sum(p.numel() for module in modules for p in module.parameters())
                text += f", {parameters / 1e6:,.2f} M parameters"
            lines.append(text)
        except UserError as error:
            problems += [Problem(p.found, _role_place(name, p.where), p.allowed, p.fix) for p in error.problems]
    if problems:
        raise UserError(problems)
    inputs.roles_are_fine = True
    return lines


def _role_place(name: str, where: str) -> str:
    """An outline knows the path, not whose it is."""
    return where if where.startswith("roles.") else f"roles.{name}.{where}" if where else f"roles.{name}"


def _resolve(cfg: RunConfig) -> Sequence[Problem]:
    """What the start asks of the family once everything else is right."""
    from fastvideo_core.dispatch.runtime import resolve_pipeline_config
    from fastvideo_core.errors import UserError

    try:
        resolve_pipeline_config(cfg)
    except UserError as error:
        return error.problems
    return ()


def _memory(cfg: RunConfig, registry: PluginRegistry, inputs: _Inputs) -> list[str]:
    from fastvideo_core.dispatch.memory_estimate import estimate_run
    from fastvideo_core.dispatch.preflight import latents_source
    from fastvideo_core.errors import UserError

    try:
        estimate = estimate_run(cfg, registry, rows=inputs.rows, latents_source=latents_source(cfg))
    except UserError:
        raise
    except Exception as error:  # of a network that was called with the run's own shapes
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return [
            f"warning: memory is not estimated, and training may fail likewise, as calling a network failed: {said}"
        ]
    if estimate is None:
        return []
    known = estimate.knows_activations
    kinds = ("weights", "gradients", "optimizer", "ema", "gathered", *(["activations"] if known else []))
    shown = [kind for kind in kinds if any(getattr(role, kind) for role in estimate.roles.values())]
    gpus = estimate.processes
    lines = [
        f"memory per GPU, {gpus} GPU{'s' if gpus > 1 else ''}, at its peak: {_size(estimate.peak)}"
        + ("" if known else ", without activations"),
        "  " + " | ".join(f"{title:>11}" for title in ("role", *shown)),
    ]
    for name, role in estimate.roles.items():
        cells = [_size(getattr(role, kind)) if getattr(role, kind) else "-" for kind in shown]
        lines.append("  " + " | ".join(f"{cell:>11}" for cell in (name, *cells)))
    if estimate.host:
        lines.append(f"memory of the host, per process: {_size(estimate.host)} of frozen weights")
    return [*lines, f"checkpoint: {_size(estimate.checkpoint)}"]


def _data(cfg: RunConfig, registry: PluginRegistry, inputs: _Inputs) -> list[str]:
    if cfg.training.data_path is None:
        return ["data: of the family's own loader, as there is no training.data_path"]
    from fastvideo_core.dispatch.preflight import normalisation_notes, open_data
    from fastvideo_core.dispatch.runtime import parquet_loader

    data = open_data(cfg, cfg.training.data_path)
    inputs.loader = loader = parquet_loader(cfg, processes=cfg.training.num_gpus, data=data)
    inputs.rows, inputs.made_by = data.examples(), data.encoders
    return [
        (
            f"data: {data.num_samples} samples in {cfg.training.data_path} ({', '.join(data.tensor_names)}), "
            f"{loader.batches_per_epoch} batches per epoch and process"
        ),
        *(f"warning: {note}" for note in normalisation_notes(cfg, data)),
    ]


def _prompts(cfg: RunConfig, registry: PluginRegistry, inputs: _Inputs) -> list[str]:
    if not cfg.training.log_validation or cfg.training.validation_dataset_file is None:
        return []
    from fastvideo_core.dispatch.preflight import validation_prompts

    inputs.prompts = validation_prompts(cfg)
    return [f"validation: {len(inputs.prompts)} prompts every {cfg.training.validation_steps} steps"]


def _resume(cfg: RunConfig, registry: PluginRegistry, inputs: _Inputs) -> list[str]:
    if cfg.training.resume_from_checkpoint is None:
        return []
    from fastvideo_core.dispatch.preflight import check_steps_left
    from fastvideo_core.dispatch.resuming import resume_problems
    from fastvideo_core.dispatch.runtime import build_checkpoint_manager, resumed_checkpoint
    from fastvideo_core.errors import UserError

    resumed = resumed_checkpoint(cfg, put_back=False)
    step = build_checkpoint_manager(cfg, registry).prepare_resume(resumed)
    check_steps_left(cfg, step)
    if resumed is not None and (problems := resume_problems(cfg, registry, resumed, inputs.loader, inputs.rows)):
        raise UserError(problems)
    notes = resumed.notes() if resumed is not None else []
    afresh = ", the data starts afresh" if cfg.training.resume_with_new_data else ""
    return [f"resume: after step {step}{afresh}", *(f"warning: {note}" for note in notes)]


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.2f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
