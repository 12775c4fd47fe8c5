"""`fastvideo-distill preprocess`: videos, images and captions, or prompts alone, become a parquet data set."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvideo_core.cli.options import finite, up_to
from fastvideo_core.config import limits
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:  # torch is imported when encoding starts, not to show help
    from fastvideo_core.registry.registry import PluginRegistry
    from fastvideo_data.encoder import LatentEncoder
    from fastvideo_data.preprocessing.clips import PreprocessOptions

_ASPECTS = "0.5:2:7"
"""Wide and upright pictures alike, 1.26 apart."""


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
    one = parser.add_argument_group("clips of one size (not for prompts alone)")
    one.add_argument("--height", type=up_to(limits.PIXELS), help="pixels")
    one.add_argument("--width", type=up_to(limits.PIXELS), help="pixels")
    one.add_argument(
        "--num-frames", type=up_to(limits.FRAMES), help="frames of a clip; with 1, images are samples, too"
    )
    many = parser.add_argument_group("buckets: clips of many sizes, each the one that fits its video or image")
    many.add_argument("--buckets", action="store_const", const=True, help="said by --area and --frames, too")
    many.add_argument(
        "--area",
        action="append",
        type=_area,
        metavar="HEIGHTxWIDTH",
        help="about so many pixels, in every aspect ratio; given several times, each video gets the largest area that does "
        "not enlarge it by more than 1.25",
    )
    many.add_argument(
        "--aspects",
        type=_aspects,
        metavar="RATIOS",
        help=f"width:height, such as 16:9,1:1,9:16, or FROM:TO:COUNT, evenly spaced (default: {_ASPECTS}); each video "
        "gets the nearest one",
    )
    many.add_argument(
        "--frames",
        type=_frames,
        metavar="COUNTS",
        help="frames of a clip, such as 1,33,81: each video gets the most that it has; with 1, images are samples, too",
    )
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
    several = parser.add_argument_group("several processes")
    several.add_argument(
        "--num-processes",
        type=_processes,
        default=1,
        help="on this machine, each with a GPU and with its share of the input (default: 1)",
    )
    several.add_argument(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="I/N",
        help="encode share I, from 0, of N alone; the others are calls of their own, as in a Slurm array: "
        "--shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT",
    )


def run(args: argparse.Namespace) -> int:
    """Encodes what is not encoded yet and reports what was skipped."""
    from fastvideo_core.dispatch.output_dir import alone_in
    from fastvideo_core.launch.launcher import has_own_launcher
    from fastvideo_data.preprocessing.output_folder import check_data_output
    from fastvideo_data.preprocessing.raw_videos import discover
    from fastvideo_data.preprocessing.run import preprocess

    check_data_output(args.output, args.input)
    source = discover(args.input, images=args.num_frames == 1 or 1 in (args.frames or ()))
    check_data_output(args.output, *source.folders)
    options = _options(args, source.has_videos)
    if args.num_processes * args.shard[1] > 1:
        return _run_shares(args, options, has_own_launcher())
    with alone_in(args.output, where="--output"):
        preprocess(_encoder(args), args.input, args.output, options)
    return 0


def _encoder(args: argparse.Namespace) -> LatentEncoder:
    from fastvideo_core.contracts.family import open_family
    from fastvideo_core.dispatch.trained_model import family_of_pipeline
    from fastvideo_core.distributed import context

    registry: PluginRegistry = args.registry
    family = args.family or family_of_pipeline(args.model, registry)
    encoder: LatentEncoder = open_family(family, registry, "encoder").encoder(args.model, device=context.device())
    return encoder


def _run_shares(args: argparse.Namespace, options: PreprocessOptions, started: bool) -> int:
    """What `run` does where several processes share the input: starts them, is one that was started so, or one by itself.

    Other launchers' processes share nothing unless --shard says so: they may well have inputs of their own.
    """
    from fastvideo_core.launch.launcher import end_with_launcher
    from fastvideo_core.launch.processes import start_processes
    from fastvideo_data.preprocessing.share_account import Share, forget_accounts
    from fastvideo_data.preprocessing.shares import merge_shares, prepare_shares, preprocess_share
    from fastvideo_data.preprocessing.siblings import Siblings, call_of

    processes = args.num_processes
    index, count = args.shard
    shares = range(index * processes, (index + 1) * processes)
    mine = Share(shares.start, count * processes)
    call = args.input, args.output, options
    encoder = _encoder(args)
    if started:  # by one that has let it in, and tells what all did
        end_with_launcher()
        rank = int(os.environ["RANK"])
        preprocess_share(encoder, *call, replace(mine, index=mine.index + rank), shows=rank == 0)
        return 0
    name = call_of(args.input, options, mine.count)
    with Siblings(args.output, shares, name, lambda: prepare_shares(encoder, *call, mine)) as siblings:
        if processes == 1:
            preprocess_share(encoder, *call, mine)
        elif status := start_processes(processes, args.typed):
            return status
        with siblings.turn():
            merge_shares(encoder, *call, mine.count)
            if len(shares) == mine.count:
                forget_accounts(args.output)
    return 0


def _options(args: argparse.Namespace, has_videos: bool) -> PreprocessOptions:
    from fastvideo_core.errors import ConfigError, Problem
    from fastvideo_data.preprocessing.buckets import Buckets
    from fastvideo_data.preprocessing.clips import PreprocessOptions

    sizes = {"--height": args.height, "--width": args.width, "--num-frames": args.num_frames}
    choice = {"--buckets": args.buckets, "--area": args.area, "--aspects": args.aspects, "--frames": args.frames}
    named = [name for name, value in choice.items() if value is not None]
    wanted = {"--area": args.area, "--frames": args.frames} if named else sizes
    missing = [name for name, value in wanted.items() if value is None]
    both = [name for name, value in sizes.items() if value is not None]
    if named and both:
        found = f"{', '.join(both)} make clips of one size, and {', '.join(named)} of many"
        raise ConfigError(Problem(found, fix=f"leave {', '.join(both)} or {', '.join(named)} out"))
    if has_videos and missing:
        found = f"{args.input} holds videos, and {', '.join(missing)} is not given"
        one, many = "--height 480 --width 832 --num-frames 77", "--area 480x832 --frames 33,81"
        fix = f"say the size of a clip, for example {one}, or of clips of many sizes, for example {many}"
        raise ConfigError(Problem(found, fix=fix))
    of_videos = {**sizes, **choice, "--fps-policy": args.fps_policy, "--fps": args.fps, "--clips": args.clips}
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
        buckets=Buckets(tuple(args.area), args.aspects or _aspects(_ASPECTS), args.frames) if named else None,
    )


def _area(text: str) -> int:
    pixels: int = _parsed("parse_area", text, "an area such as 480x832")
    return pixels


def _aspects(text: str) -> tuple[float, ...]:
    allowed = "a list of ratios such as 16:9,1:1,9:16, or FROM:TO:COUNT such as 0.5:2:7"
    ratios: tuple[float, ...] = _parsed("parse_aspects", text, allowed)
    return ratios


def _frames(text: str) -> tuple[int, ...]:
    counts: tuple[int, ...] = _parsed("parse_frames", text, "a list of frame counts such as 1,33,81")
    return counts


def _processes(text: str) -> int:
    if (number := up_to(limits.PROCESSES)(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is below 1")
    return number


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count) <= limits.PROCESSES):
        n = int(count) if count.isdecimal() and 0 < int(count) <= limits.PROCESSES else 8
        shares = f"0/{n} to {n - 1}/{n} are those of {n} (in Slurm, --array=0-{n - 1})"
        raise argparse.ArgumentTypeError(f"{text!r} is no share: {shares}")
    return int(index), int(count)


def _parsed(name: str, text: str, allowed: str) -> Any:
    from fastvideo_data.preprocessing import buckets  # brings torch, which help does without

    try:
        return getattr(buckets, name)(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}") from error


COMMAND = Command(add_arguments, run)
