"""Options that several commands have, and numbers on the command line, with argparse's own message where they are none."""

import argparse
import math
from collections.abc import Callable
from typing import Any

from fastvideo_core.config import limits

_DIGITS = 20


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, --family, --role, --weights: what `sample` and `export` read."""
    parser.add_argument("model", help="a checkpoint, a run's folder (its newest checkpoint), or a diffusers folder")
    parser.add_argument("--family", help="the model family (default: what the checkpoint or model_index.json says)")
    parser.add_argument("--role", help="which role of a checkpoint (default: student, or its only role)")
    weights = "weights of a checkpoint: ema, raw, or auto: ema where there are some (default)"
    parser.add_argument("--weights", choices=("auto", "raw", "ema"), default="auto", help=weights)


def add_run(parser: argparse.ArgumentParser, resume: str) -> None:
    """The configuration of `train` and `check`, `--resume`, whose help is `resume`, and `--new-data`."""
    parser.add_argument("config", help="the run's run.yaml")
    parser.add_argument("--resume", metavar="latest|PATH", help=resume)
    new_data = "with --resume: go on with more or other data; all but the position in the data is kept"
    parser.add_argument("--new-data", action="store_true", help=new_data)


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The values of run.yaml's `training` that the options of a run replace."""
    found: dict[str, Any] = {} if args.resume is None else {"resume_from_checkpoint": args.resume}
    return {**found, "resume_with_new_data": True} if args.new_data else found


def finite(text: str) -> float:
    """A number that is not NaN, and not larger than what can be meant."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= limits.FACTOR:
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number up to {limits.FACTOR}")
    return value


def up_to(most: int) -> Callable[[str], int]:
    """A whole number that is not above `most`; whether it is too small is for the command to say."""

    def number(text: str) -> int:
        value = int(text) if len(text) <= _DIGITS else most + 1
        if value > most:
            raise argparse.ArgumentTypeError(f"{text[:_DIGITS]!r} is above {most}, the largest number that it takes")
        return value

    number.__name__ = "whole number"  # as argparse names it where `int` refuses
    return number


def seed(text: str) -> int:
    """A whole number from 0 up to 2^63."""
    if not text.isdecimal() or len(text) > _DIGITS or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {2**63 - 1}")
    return int(text)
