"""`fastvideo-distill export CKPT OUT`: a checkpoint as a plain diffusers folder."""

import argparse
from pathlib import Path

from fastvideo_core.cli import options
from fastvideo_core.launch.stdio import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    parser.add_argument("out", type=Path, help="folder to write; must not hold anything yet")
    lora = "of a role that trained adapters: a whole pipeline with them merged (default), or the adapters alone"
    parser.add_argument("--lora", choices=("merged", "separate"), help=lora)
    formats = "of separate adapters: diffusers (default), comfyui, or another one that the family writes"
    parser.add_argument("--format", default="diffusers", help=formats)


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says what is in it."""
    from fastvideo_core.config.output_folder import check_new_folder
    from fastvideo_core.contracts.family import open_family
    from fastvideo_core.dispatch.trained_model import open_trained_model
    from fastvideo_core.errors import ConfigError, Problem

    registry = args.registry
    model = open_trained_model(args.model, registry, family=args.family, role=args.role, weights=args.weights)
    source = model.source
    if source.checkpoint is None:
        found, fix = "this is a diffusers folder already", "give the path of a checkpoint"
        raise ConfigError(Problem(found, args.model, fix=fix))
    if args.lora is not None and source.lora is None:
        raise ConfigError(Problem("is for roles that trained adapters", f"--lora {args.lora}", fix="leave it out"))
    if args.format != "diffusers" and args.lora != "separate":
        found, fix = "is for adapters alone", "add --lora separate, or leave it out"
        raise ConfigError(Problem(found, f"--format {args.format}", fix=fix))
    check_new_folder(args.out)
    if args.lora == "separate":
        assert source.lora is not None
        family = open_family(model.family, registry, "export_lora")
        notes = family.export_lora(source.base, args.out, model.weights(), lora=source.lora, format=args.format)
        if source.below is not None and (source.below.checkpoint is not None or source.below.merged):
            notes = [f"the adapters were trained on {source.below}: they fit nothing else"]
    else:
        family, weights = open_family(model.family, registry, "export"), model.whole_weights(registry)
        config, schedule = model.pipeline_config, model.student_schedule
        notes = family.export(source.base, args.out, weights, pipeline_config=config, student_schedule=schedule)
    say(f"{args.out}: {source}")
    for note in notes:
        say(f"note: {note}")
    return 0
