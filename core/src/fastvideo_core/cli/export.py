"""`fastvideo-distill export CKPT OUT`: a checkpoint as a plain diffusers folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.cli import options
from fastvideo_core.launch.stdio import say

if TYPE_CHECKING:  # torch is imported when there is something to export, not to show help
    from fastvideo_core.registry.registry import PluginRegistry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    options.add_model(parser)
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
    source = model.source
    if source.checkpoint is None:
        fix = "give the path of a checkpoint"
        raise ConfigError(Problem("this is a diffusers folder already", where=args.model, fix=fix))
    if args.lora is not None and source.lora is None:
        where, fix = f"--lora {args.lora}", "leave it out"
        raise ConfigError(Problem("is for roles that trained adapters", where=where, fix=fix))
    check_new_folder(args.out)
    if args.lora == "separate":
        assert source.lora is not None
        family = open_family(model.family, registry, "export_lora")
        notes = family.export_lora(source.base, args.out, model.weights(), lora=source.lora)
        if source.below is not None and source.below.checkpoint is not None:
            notes = [f"the adapters were trained on {source.below}: they fit nothing else"]
    else:
        notes = open_family(model.family, registry, "export").export(
            source.base,
            args.out,
            model.whole_weights(registry),
            pipeline_config=model.pipeline_config,
            student_schedule=model.student_schedule,
        )
    say(f"{args.out}: {source}")
    for note in notes:
        say(f"note: {note}")
    return 0
