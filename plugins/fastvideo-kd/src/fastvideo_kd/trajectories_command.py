"""`fastvideo-distill trajectories`: a teacher samples prompts, and the states that it went through become a data set."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fastvideo_core.cli.options import finite, seed, up_to
from fastvideo_core.config import limits
from fastvideo_core.registry.specs import Command

ENCODED = ".prompts"
"""Sub-folder of the output with the encoded prompts; hidden, so that it is no part of the data set."""
DENOISING_STEPS = "1000,750,500,250"
"""The student's schedule where the command line names none."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `trajectories`."""
    pixels = up_to(limits.PIXELS)
    parser.add_argument("--family", help="the model family (default: what the checkpoint or model_index.json says)")
    parser.add_argument(
        "--model", required=True, help="the teacher: a diffusers folder, a hub id, or one of our checkpoints"
    )
    parser.add_argument("--role", help="which role of a checkpoint (default: student, or its only role)")
    parser.add_argument(
        "--prompts",
        required=True,
        type=Path,
        help="a text file with a prompt a line, or a folder that `preprocess` made of one; of a network that is given images, a "
        "folder that `preprocess` made of clips",
    )
    parser.add_argument(
        "--output", required=True, type=Path, help="folder of the data set; called again, it goes on there"
    )
    parser.add_argument(
        "--steps", type=up_to(limits.SAMPLING_STEPS), default=48, help="steps of the teacher (default: 48)"
    )
    parser.add_argument("--guidance-scale", type=finite, default=6.0, help="w of u + w (c - u); 1 is none (default: 6)")
    parser.add_argument(
        "--negative-prompt", metavar="TEXT", help="what guidance leads away from (default: the model's published one)"
    )
    parser.add_argument(
        "--flow-shift", type=finite, help="timestep shift of the teacher's steps (default: the pipeline's)"
    )
    parser.add_argument(
        "--denoising-steps",
        default=DENOISING_STEPS,
        help="the student's schedule, as method_config.denoising_steps of kd: the states that are stored, beside the clean "
        f"end (default: {DENOISING_STEPS})",
    )
    parser.add_argument(
        "--no-warp", action="store_true", help="take that schedule as it is (warp_denoising_step: false)"
    )
    parser.add_argument("--all-states", action="store_true", help="store every state, for any schedule")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the stored states; they are float32 while the teacher samples (default: float32)",
    )
    parser.add_argument(
        "--mixed-precision", choices=("no", "bf16"), default="no", help="in which the network computes (default: no)"
    )
    parser.add_argument("--height", type=pixels, help="pixels (default: the family's)")
    parser.add_argument("--width", type=pixels, help="pixels (default: likewise)")
    parser.add_argument("--num-frames", type=up_to(limits.FRAMES), help="frames (default: likewise)")
    parser.add_argument("--seed", type=seed, default=0, help="of the noise of all prompts (default: 0)")
    parser.add_argument(
        "--batch-size", type=up_to(limits.SAMPLES), default=1, help="prompts sampled together (default: 1)"
    )
    parser.add_argument(
        "--samples-per-file", type=up_to(limits.SAMPLES), default=8, help="samples in a file (default: 8)"
    )
    parser.add_argument(
        "--num-gpus",
        type=up_to(limits.PROCESSES),
        default=1,
        help="processes on this machine, each with the whole teacher and its share of the prompts; torchrun and srun "
        "may start them, too (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Samples what is not there yet, in this process or in several that it starts."""
    from fastvideo_core.launch.launcher import complete_environment, launched_processes

    launched = launched_processes()
    if launched is not None:
        complete_environment()
        return _write(args, rank=int(os.environ["RANK"]), size=launched)

    from fastvideo_core.dispatch.output_dir import alone_in
    from fastvideo_data.preprocessing.output_folder import check_data_output

    check_data_output(args.output, *([args.prompts] if args.prompts.is_file() else []))
    with alone_in(args.output, where="--output"):
        if args.num_gpus <= 1:
            return _write(args, rank=0, size=1)
        from fastvideo_core.launch.processes import start_processes
        from fastvideo_kd.teacher import check_options, encode_prompts

        check_options(args)
        encode_prompts(args)
        return start_processes(args.num_gpus, args.typed)


def _write(args: argparse.Namespace, *, rank: int, size: int) -> int:
    from fastvideo_kd.teacher import check_options, encode_prompts
    from fastvideo_kd.trajectories import write_trajectories

    check_options(args)
    if size == 1:
        encode_prompts(args)
    write_trajectories(args, rank=rank, size=size)
    return 0


COMMAND = Command(add_arguments, run)
