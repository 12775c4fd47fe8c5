"""`fastvideo-distill simulate RUN --gpus 512`: what a run would hold, send and take on machines that nobody has booked yet."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fastvideo_core.cli.options import add_run, finite, overrides, up_to
from fastvideo_core.cli.table import render_table, terminal_width
from fastvideo_core.config import limits
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:  # torch is imported when a run is looked at, not to show help
    from fastvideo_core.dispatch.examine import Run
    from fastvideo_tools.simulate.simulation import Simulation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    count = up_to(limits.PROCESSES)
    add_run(parser, "as with train")
    parser.add_argument("--gpus", type=count, metavar="N", help="instead of run.yaml's num_gpus")
    parser.add_argument("--gpus-per-node", type=count, metavar="N", default=8, help="default: 8")
    parser.add_argument(
        "--shards", type=count, metavar="N", help="instead of run.yaml's hsdp_shard_dim; 0: one replica"
    )
    parser.add_argument(
        "--hardware", metavar="NAME|FILE", default="H100", help="H100, H200, B200, or a YAML file; default: H100"
    )
    parser.add_argument(
        "--achieved", type=finite, metavar="PART", help="part of the GPU's FLOP/s; default: 0.42, as measured"
    )
    parser.add_argument(
        "--storage", type=finite, metavar="GB/S", default=5.0, help="of checkpoints and weights; default: 5"
    )
    parser.add_argument(
        "--sweep", action="store_true", help="compare shapes, batches and offloading, and name the best three"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument("--json", action="store_true", help="all figures, in bytes, seconds and FLOPs")


def run(args: argparse.Namespace) -> int:
    """Prints, and writes where asked, what one iteration of each kind is found to take."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same everywhere; fake ranks have no GPUs
    from fastvideo_core.dispatch.examine import examine
    from fastvideo_core.dispatch.load_run_config import load_run_config
    from fastvideo_tools.pages.html import save
    from fastvideo_tools.simulate.figures import Machines, figures
    from fastvideo_tools.simulate.hardware import hardware
    from fastvideo_tools.simulate.page import write_page
    from fastvideo_tools.simulate.simulation import simulate
    from fastvideo_tools.simulate.sweep import BEST, sweep
    from fastvideo_tools.simulate.tables import assumptions, choices, summary, tables

    if args.storage <= 0:
        raise ConfigError(Problem(f"found {args.storage:g}", "--storage", "GB/s above 0"))
    machine = hardware(args.hardware)
    if args.achieved is not None:
        machine = replace(machine, compute_achieved=args.achieved)
    options = {**overrides(args), **_replaced(args)}
    cfg = load_run_config(args.config, args.registry, options)
    gpus = cfg.training.num_gpus
    per_node = min(args.gpus_per_node, gpus)
    if per_node < 1 or gpus % per_node:
        found = f"{gpus} GPUs are no whole number of nodes of {args.gpus_per_node}"
        raise ConfigError(
            Problem(found, "--gpus", f"multiples of {args.gpus_per_node}", "change --gpus or --gpus-per-node")
        )
    machines = Machines(machine, per_node, args.storage)

    def said(text: str) -> None:
        if not args.json and sys.stderr.isatty():
            print(f"  {text}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels on tensors without values
        resolved: Run = examine(cfg, args.registry, starts=False)[0]
        simulated = simulate(resolved, said=said)
        found_figures: dict[str, Any] = figures(simulated, machines)
        if (note := _num_gpus_note(args)) is not None:
            found_figures["notes"].append(note)
        others = _others(args, options, cfg.training.sequence_parallel, per_node, said)
        swept = sweep(simulated, machines, others, said) if args.sweep else []
    if args.html is not None:
        title = f"{cfg.recipe.method} of {cfg.recipe.family} on {gpus} GPUs, simulated"
        save(args.html, write_page(title, found_figures, swept, args.storage))
    if args.json:
        assumed = {"assumptions": assumptions(found_figures, args.storage)}
        say(json.dumps({**found_figures, **assumed, "sweep": [asdict(one) for one in swept]}, indent=2))
        return 0
    say(f"{args.config}: {cfg.recipe.method} of {cfg.recipe.family}, simulated")
    for line in (*summary(found_figures), *(f"note: {note}" for note in found_figures["notes"])):
        say(f"  {line}")
    for table in (*tables(found_figures), *([choices(swept)] if swept else [])):
        say(f"\n{table.title}")
        say(render_table(table.headings, table.rows, terminal_width()))
    if swept:
        fitting = [one for one in swept if one.fits][:BEST]
        say("\nbest:" if fitting else "\nnothing of this fits")
        for one in fitting:
            say(f"  {', '.join(f'training.{key}: {str(value).lower()}' for key, value in one.changes.items())}")
    say("\nWhat this assumes")
    for text in assumptions(found_figures, args.storage):
        say(f"- {text}")
    return 0


def _replaced(args: argparse.Namespace) -> dict[str, Any]:
    """What of run.yaml's `training` the command line replaces."""
    found: dict[str, Any] = {} if args.gpus is None else {"num_gpus": args.gpus}
    if args.shards is not None:
        found |= {"hsdp_shard_dim": args.shards or None, "hsdp_replicate_dim": None}
    return found


def _num_gpus_note(args: argparse.Namespace) -> str | None:
    """That what run.yaml says of num_gpus does not count here."""
    raw = yaml.safe_load(Path(args.config).read_text(encoding="utf-8"))["training"].get("num_gpus")
    if args.gpus in (None, raw) or raw is None:
        return None
    return f"num_gpus: {raw} of {args.config} is replaced by --gpus {args.gpus}"


def _others(
    args: argparse.Namespace, options: dict[str, Any], together: int, per_node: int, said: Callable[[str], None]
) -> Iterator[Simulation]:
    """The run with 1, 2, 4 GPUs of a node, and so on, on each sample; those that `check` refuses are left out."""
    from fastvideo_core.dispatch.examine import examine
    from fastvideo_core.dispatch.load_run_config import load_run_config
    from fastvideo_tools.simulate import simulation

    for number in (2**power for power in range(per_node.bit_length())):
        if number == together:
            continue
        said(f"sequence_parallel {number}")
        try:
            cfg = load_run_config(args.config, args.registry, {**options, "sequence_parallel": number})
            yield simulation.simulate(examine(cfg, args.registry, starts=False)[0], said=said)
        except ConfigError:  # the family, heads, or tokens do not allow it
            continue


COMMAND = Command(add_arguments, run)
