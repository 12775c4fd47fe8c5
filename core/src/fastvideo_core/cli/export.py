"""`fastvideo-distill export CKPT OUT`: a checkpoint as a plain diffusers folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.cli.model_options import add_model_options
from fastvideo_core.launch.stdio import say

if TYPE_CHECKING:
    from fastvideo_core.dispatch.trained_model import TrainedModel
    from fastvideo_core.registry.registry import PluginRegistry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    add_model_options(parser)
    parser.add_argument("out", type=Path, help="folder to write; must not hold anything yet")
    parser.add_argument(
        "--lora",
        choices=("merged", "separate"),
        help="of a role that trained adapters: a whole pipeline with them merged (default), or the adapters alone",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says what is in it."""
    from fastvideo_core.config.output_folder import check_new_folder
    from fastvideo_core.contracts.family import open_family
    from fastvideo_core.dispatch.trained_model import open_trained_model
    from fastvideo_core.errors import ConfigError, Problem

    registry: PluginRegistry = args.registry
    model = open_trained_model(args.model, registry, family=args.family, role=args.role, weights=args.weights)
    if model.source.checkpoint is None:
        fix = "give the path of a checkpoint"
        raise ConfigError(Problem("this is a diffusers folder already", where=args.model, fix=fix))
    if args.lora is not None and model.source.lora is None:
        raise ConfigError(
            Problem("is for roles that trained adapters", where=f"--lora {args.lora}", fix="leave it out")
        )
    check_new_folder(args.out)
    notes: Sequence[str]
    if args.lora == "separate":
        notes = _export_adapters(registry, model, args.out)
    else:
        notes = open_family(model.family, registry, "export").export(
            model.source.base,
            args.out,
            model.whole_weights(registry),
            pipeline_config=model.pipeline_config,
            student_schedule=model.student_schedule,
        )
    say(f"{args.out}: {model.source}")
    for note in notes:
        say(f"note: {note}")
    return 0


def _export_adapters(registry: PluginRegistry, model: TrainedModel, out: Path) -> Sequence[str]:
    from fastvideo_core.contracts.family import open_family

    assert model.source.lora is not None
    family = open_family(model.family, registry, "export_lora")
    notes = family.export_lora(model.source.base, out, model.weights(), lora=model.source.lora)
    if model.source.below is not None and model.source.below.checkpoint is not None:
        return [f"the adapters were trained on {model.source.below}: they fit nothing else"]
    return notes
