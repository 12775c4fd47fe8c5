"""The options of train and check for a run that goes on."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser, resume: str) -> None:
    """`--resume`, whose help is `resume`, and `--new-data`."""
    parser.add_argument("--resume", metavar="latest|PATH", help=resume)
    parser.add_argument(
        "--new-data",
        action="store_true",
        help="with --resume: go on with more or other data; all but the position in the data is kept",
    )


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The values of run.yaml that the options replace, by dotted key."""
    found: dict[str, Any] = {} if args.resume is None else {"training.resume_from_checkpoint": args.resume}
    return {**found, "training.resume_with_new_data": True} if args.new_data else found
