"""`fastvideo-distill preprocess`: videos and captions, or prompts alone, become a parquet data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.cli.options import finite, up_to
from fastvideo_core.config import limits
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:  # torch is imported when encoding starts, not to show help
    from fastvideo_core.registry.registry import PluginRegistry
    from fastvideo_data.preprocessing.run import PreprocessOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `preprocess`."""
    parser.add_argument(
        "--family", help="the model family whose encoders are used (default: what model_index.json says)"
    )
    parser.add_argument("--model", required=True, help="diffusers folder or hub id with the VAE and the text encoder")
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        help="a folder with x.mp4 beside x.txt, or with metadata.csv|tsv|json|jsonl or FastVideo's videos2caption.json, or with "
        "videos.txt and prompts.txt; a metadata file; or a .txt of prompts alone",
    )
    parser.add_argument(
        "--output", required=True, type=Path, help="folder of the data set; called again, it goes on there"
    )
    parser.add_argument("--height", type=up_to(limits.PIXELS), help="pixels (not for prompts alone)")
    parser.add_argument("--width", type=up_to(limits.PIXELS), help="pixels (not for prompts alone)")
    parser.add_argument("--num-frames", type=up_to(limits.FRAMES), help="frames of a clip (not for prompts alone)")
    parser.add_argument(
        "--fps-policy",
        choices=("resample", "keep"),
        help="bring videos to the model's frame rate (default), or take their frames as they are",
    )
    parser.add_argument("--fps", type=finite, help="frame rate for resample (default: the model's)")
    parser.add_argument(
        "--clips",
        choices=("first", "all"),
        help="one clip from each video's start (default), or all consecutive clips of it",
    )
    parser.add_argument(
        "--samples-per-file", type=up_to(limits.SAMPLES), default=32, help="samples in a parquet file (default: 32)"
    )
    parser.add_argument(
        "--batch-size", type=up_to(limits.SAMPLES), default=1, help="clips encoded together (default: 1)"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="take samples of what the input no longer lists out of the data set (default: say so and stop)",
    )


def run(args: argparse.Namespace) -> int:
    """Encodes what is not encoded yet and reports what was skipped."""
    from fastvideo_core.contracts.family import open_family
    from fastvideo_core.dispatch.output_dir import alone_in
    from fastvideo_core.dispatch.trained_model import family_of_pipeline
    from fastvideo_core.distributed import context
    from fastvideo_data.preprocessing.output_folder import check_data_output
    from fastvideo_data.preprocessing.raw_videos import discover
    from fastvideo_data.preprocessing.run import preprocess

    check_data_output(args.output, args.input)
    source = discover(args.input, images=args.num_frames == 1)
    check_data_output(args.output, *source.folders)
    options = _options(args, source.has_videos)
    registry: PluginRegistry = args.registry
    family = args.family or family_of_pipeline(args.model, registry)
    offering = open_family(family, registry, "encoder")
    with alone_in(args.output, where="--output"):
        preprocess(offering.encoder(args.model, device=context.device()), args.input, args.output, options)
    return 0


def _options(args: argparse.Namespace, has_videos: bool) -> PreprocessOptions:
    from fastvideo_core.errors import ConfigError, Problem
    from fastvideo_data.preprocessing.run import PreprocessOptions

    sizes = {"--height": args.height, "--width": args.width, "--num-frames": args.num_frames}
    missing = [name for name, value in sizes.items() if value is None]
    if has_videos and missing:
        found = f"{args.input} holds videos, and {', '.join(missing)} is not given"
        raise ConfigError(
            Problem(found, fix="say the size of a clip, for example --height 480 --width 832 --num-frames 77")
        )
    of_videos = {**sizes, "--fps-policy": args.fps_policy, "--fps": args.fps, "--clips": args.clips}
    given = [name for name, value in of_videos.items() if value is not None]
    if not has_videos and given:
        found = f"{args.input} holds prompts alone; {', '.join(given)} {'are' if len(given) > 1 else 'is'} for videos"
        raise ConfigError(Problem(found, fix=f"leave {', '.join(given)} out"))
    return PreprocessOptions(
        height=args.height or 0,
        width=args.width or 0,
        num_frames=args.num_frames or 0,
        fps_policy=args.fps_policy or "resample",
        fps=args.fps,
        clips=args.clips or "first",
        samples_per_file=args.samples_per_file,
        batch_size=args.batch_size,
        prune=args.prune,
    )


COMMAND = Command(add_arguments, run)
