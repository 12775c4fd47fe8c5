"""`fastvideo-distill tiny FAMILY OUT`: a small random-weight pipeline in the family's real format."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from fastvideo_core.cli import options
from fastvideo_core.launch.stdio import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tiny`."""
    parser.add_argument("family", help="an installed model family")
    parser.add_argument("out", type=Path, help="folder to write; must not hold anything yet")
    parser.add_argument("--seed", type=options.seed, default=0, help="seed of the random weights (default: 0)")
    parser.add_argument(
        "--set",
        metavar="NAME=NUMBER",
        action="append",
        default=[],
        help="a size of the family's tiny model, for example --set num_layers=4 (repeatable)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says where, and what the family says of it."""
    from fastvideo_core.config.output_folder import check_new_folder, nothing_half_written
    from fastvideo_core.contracts.family import open_family

    check_new_folder(args.out)
    write: Any = open_family(args.family, args.registry, "tiny").tiny
    sizes = _sizes(write, args.set)
    with nothing_half_written(args.out):
        what = write(args.out, seed=args.seed, **sizes)
    say(f"{args.out}: {what}" if what else args.out)
    return 0


def _sizes(write: Any, settings: list[str]) -> dict[str, int]:
    from fastvideo_core.errors import ConfigError, Problem

    known = [name for name in inspect.signature(write).parameters if name not in ("out", "seed")]
    sizes, problems = {}, []
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known:
            problems.append(Problem(f"there is no size '{name}'", where=f"--set {setting}", allowed=", ".join(known)))
        elif not value.isdecimal() or len(value) > 5:
            allowed = "a whole number below 100000"
            problems.append(Problem(f"'{value}' is no size of something tiny", f"--set {setting}", allowed=allowed))
        else:
            sizes[name] = int(value)
    if problems:
        raise ConfigError(problems)
    return sizes
