"""`fastvideo-distill pairs`, which is `plugins --pairs`: what methods need, what families offer, and which fit each other."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastvideo_core.cli.table import render_table, terminal_width
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:
    from fastvideo_tools.fitting import Fitting

MARKS = {True: "yes", False: "NO", None: "?"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a method or family is left out")


def run(args: argparse.Namespace) -> int:
    """Imports every method and family that is installed; 1 where `--strict` is given and one of them is left out, else 0."""
    with contextlib.redirect_stdout(sys.stderr):  # what a plug-in prints while it is imported is not of the answer
        from fastvideo_tools.fitting import fitting

        found = fitting(args.registry)
    if args.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        say("\n\n".join(as_text(found, terminal_width())))
    return int(args.strict and bool(found.broken))


def as_text(found: Fitting, width: int) -> Iterator[str]:
    """Methods, families, the pairs, and why some do not fit."""
    if found.methods:
        rows = [
            (
                one.name,
                ", ".join([*one.roles, *(f"{role} (optional)" for role in one.optional_roles)]) or "none",
                one.unknown or ", ".join(one.needs) or "nothing",
            )
            for one in found.methods
        ]
        yield render_table(("METHOD", "ROLES", "NEEDS (with its default options)"), rows, width)
    if found.families:
        yield render_table(
            ("FAMILY", "OFFERS"), [(one.name, one.unknown or ", ".join(one.offers)) for one in found.families], width
        )
    if found.pairs:
        fits = {(pair.method, pair.family): MARKS[pair.fits] for pair in found.pairs}
        families = [one.name for one in found.families]
        cells = [(one.name, *(fits[one.name, family] for family in families)) for one in found.methods]
        yield render_table(("FITS", *families), cells, width)
    for pair in found.pairs:
        if pair.reasons:
            yield f"{MARKS[pair.fits]} {pair.method} on {pair.family}:\n    " + "\n    ".join(pair.reasons)
    if found.pairs:
        yield "Told by classes and default options; of a run of yours `fastvideo-distill check run.yaml` tells."
    for reason in found.broken:
        yield f"left out: {reason}"
    if not found.pairs:
        yield "There is no pair: a method and a family must be installed (fastvideo-distill plugins)."


COMMAND = Command(add_arguments, run)
