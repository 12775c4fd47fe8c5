"""`fastvideo-distill tiny FAMILY OUT`: a small random-weight pipeline in the family's real format."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from fastvideo_core.cli.options import seed
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command
from fastvideo_tools.half_written import nothing_half_written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", help="an installed model family")
    parser.add_argument("out", type=Path, help="folder to write; must not hold anything yet")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the random weights (default: 0)")
    size = "a size or the kind of the family's tiny model, for example --set num_layers=4 (repeatable)"
    parser.add_argument("--set", metavar="NAME=VALUE", type=_size, action="append", default=[], help=size)


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says where, and what the family says of it."""
    from fastvideo_core.config.output_folder import check_new_folder
    from fastvideo_core.contracts.family import open_family
    from fastvideo_core.errors import ConfigError, Problem

    check_new_folder(args.out)
    write: Any = open_family(args.family, args.registry, "tiny").tiny
    known = {name: p.default for name, p in inspect.signature(write).parameters.items() if name not in ("out", "seed")}
    if unknown := [name for name, _ in args.set if name not in known]:
        raise ConfigError([Problem(f"there is no size '{one}'", "--set", ", ".join(known)) for one in unknown])
    if words := [name for name, value in args.set if isinstance(value, str) and type(known[name]) is not str]:
        raise ConfigError([Problem("is no number", f"--set {one}", "a whole number below 100000") for one in words])
    with nothing_half_written(args.out):
        what = write(args.out, seed=args.seed, **dict(args.set))
    say(f"{args.out}: {what}" if what else args.out)
    return 0


def _size(text: str) -> tuple[str, int | str]:
    name, _, value = text.partition("=")
    if not value[:1].isalpha() and not (value.isdecimal() and len(value) <= 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a word or a whole number below 100000")
    return name, int(value) if value.isdecimal() else value


COMMAND = Command(add_arguments, run)
