"""`fastvideo-distill export CKPT OUT`: a checkpoint as a plain diffusers folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvideo_core.cli.model_options import add_model_options

if TYPE_CHECKING:
    from fastvideo_core.registry.registry import PluginRegistry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    add_model_options(parser)
    parser.add_argument("out", type=Path, help="folder to write; must not hold anything yet")


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says what is in it."""
    from fastvideo_core.data.output import check_new_folder
    from fastvideo_core.dispatch.trained import open_trained_model
    from fastvideo_core.errors import ConfigError, Problem

    registry: PluginRegistry = args.registry
    model = open_trained_model(args.model, registry, family=args.family, role=args.role, weights=args.weights)
    if model.source.checkpoint is None:
        fix = "give the path of a checkpoint"
        raise ConfigError(Problem("this is a diffusers folder already", where=args.model, fix=fix))
    check_new_folder(args.out)
    export: Any = registry.resolve(registry.get("models", model.family), "export")
    notes = export(
        model.source.base,
        args.out,
        model.weights(),
        pipeline_config=model.pipeline_config,
        student_schedule=model.method_config.student_schedule if model.method_config is not None else None,
    )
    print(f"{args.out}: {model.source}")
    for note in notes:
        print(f"note: {note}")
    return 0
