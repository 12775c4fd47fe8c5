"""`fastvideo-distill sample MODEL`: videos from prompts, in few or many steps."""

import argparse
from pathlib import Path

from fastvideo_core.cli import options
from fastvideo_core.config import limits

PLAIN_GUIDANCE = 5.0  # of a plain folder's many-step model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    pixels, steps = options.up_to(limits.PIXELS), parser.add_mutually_exclusive_group()
    parser.add_argument("--prompt", action="append", default=[], help="what to show (repeatable)")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="validation JSON, or text with a prompt a line")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder for the videos (default: samples)")
    count = "sample in so many steps with the family's own sampler, also prompts that name others"
    steps.add_argument("--steps", type=options.up_to(limits.SAMPLING_STEPS), help=count)
    steps.add_argument("--timesteps", help="sample in few steps at exactly these levels, for example 1000,750,500,250")
    parser.add_argument("--sampler", choices=("ode", "sde"), help="how few-step sampling moves between levels")
    guidance = f"w of u + w (c - u); 1 is none (default: 1 for few-step students, else the run's or {PLAIN_GUIDANCE:g})"
    parser.add_argument("--guidance-scale", type=options.finite, help=guidance)
    low = "that of the network for low noise, in a model that has one (default: the run's, else --guidance-scale)"
    parser.add_argument("--guidance-scale-2", type=options.finite, help=low)
    negative = "what guidance leads away from, always; `default` is the model's published one (default: the run's)"
    parser.add_argument("--negative-prompt", metavar="TEXT", help=negative)
    frames = "image-to-video: the {} frame of every video, a picture (default: of the prompt)"
    for name, which in (("--image", "first"), ("--last-image", "last")):
        parser.add_argument(name, type=Path, dest=f"{name[2:].replace('-', '_')}_path", help=frames.format(which))
    stages = "sample at half the size, and refine what this upsampler, a folder or hub id, makes of it"
    parser.add_argument("--upsampler", metavar="PATH", help=stages)
    lora = "LoRA file merged into the weights; NETWORK=FILE for another network than the first (repeatable)"
    parser.add_argument("--lora", action="append", default=[], metavar="FILE", help=lora)
    scale = "factor of the LoRA files beside their own alpha / rank (default: 1)"
    parser.add_argument("--lora-scale", type=options.finite, metavar="S", help=scale)
    parser.add_argument("--height", type=pixels, help="pixels (default: of the prompt, the run, the family)")
    parser.add_argument("--width", type=pixels, help="pixels (default: likewise)")
    parser.add_argument("--num-frames", type=options.up_to(limits.FRAMES), help="frames (default: likewise)")
    seed = "seed of the first prompt, the next ones count up (default: 0)"
    parser.add_argument("--seed", type=options.seed, default=0, help=seed)


def run(args: argparse.Namespace) -> int:
    """Writes an mp4 and a contact sheet per prompt, and says where and how."""
    from fastvideo_core.cli.sample_videos import sample  # it imports torch, which --help does not need

    sample(args, args.registry)
    return 0
