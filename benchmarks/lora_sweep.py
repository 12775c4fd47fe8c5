"""What adapters on the teacher's weights give beside full weights, by rank and learning rate: DMD2 in the demo's world.

    python benchmarks/lora_sweep.py [--cells full r16x1e-3 ...] [--seeds 0 1 2] [--keep DIR]
    python benchmarks/lora_sweep.py --keep DIR      # prints the table of a folder again
    python benchmarks/lora_sweep.py --tiny          # everything once, with five steps of each run

A demo (`fastvideo-distill demo`) whose students are the cells: `full` is the demo's own run, `r16x1e-3` has adapters of rank 16
for student and critic on the teacher's network (`share: teacher`), and a student's learning rate of 1e-3, the critic's being
greater in the demo's proportion. All start from one teacher; seeds are those of the students' training.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from fastvideo_core.cli.main import main as distill
from fastvideo_core.contracts.demo import DemoRun
from fastvideo_core.contracts.family import open_family
from fastvideo_core.registry import PluginRegistry
from fastvideo_dmd2.demo import dmd2_demo
from fastvideo_finetune.demo import finetune_demo
from fastvideo_tools.demo.clips import FEW
from fastvideo_tools.demo.results import Results, Row, measure
from fastvideo_tools.demo.story import FULL, Extent, Recipe, Sampler, Story

TARGET = 0.9
"""Of the full weights' figures: of captions that are right, and of the nearness to the data (one over each distance)."""

FULL_WEIGHTS = "full"
CELLS = (FULL_WEIGHTS, *(f"r{rank}x1e-3" for rank in (4, 16, 64, 128)), "r16x3e-4", "r16x3e-3")
TINY_STEPS = {"max_train_steps": 5, "lr_warmup_steps": 0}
TINY_EXTENT = Extent(FEW, clips=16, samples=16, many_steps=2, guided=False, shown=())


def student(cell: str, seed: int, *, tiny: bool = False) -> DemoRun:
    """The demo's student of four steps, trained as the cell says; raises ValueError where it is none."""
    run = dmd2_demo(fast=tiny).runs[0]
    training, roles = {**run.training, "seed": seed}, {role: dict(options) for role, options in run.roles.items()}
    if cell != FULL_WEIGHTS:
        rank, rate = cell.removeprefix("r").split("x")
        ratio = float(rate) / run.training["learning_rate"]
        training["learning_rate"] = float(rate)
        roles["critic"]["learning_rate"] *= ratio
        for role in ("student", "critic"):
            roles[role] |= {"lora": {"rank": int(rank)}, "share": "teacher"}
    if tiny:
        training["max_train_steps"] = TINY_STEPS["max_train_steps"]
    return replace(run, name=f"{cell}-s{seed}", roles=roles, training=training)


def story(out: Path, students: Sequence[DemoRun], *, tiny: bool) -> Story:
    """The demo with these students."""
    teacher = finetune_demo(fast=tiny)
    if tiny:
        (run,) = teacher.runs
        teacher = replace(teacher, runs=(replace(run, training={**run.training, **TINY_STEPS}),))
    family = open_family("wan", PluginRegistry(), "demo").demo(fast=tiny)
    method = replace(dmd2_demo(fast=tiny), runs=tuple(students))
    recipe = Recipe("wan", family, "dmd2", method, "finetune", teacher)
    return Story(recipe, out, TINY_EXTENT if tiny else FULL, 0, distill)


def kept(out: Path) -> tuple[Sampler, ...]:
    """What a folder has samples of."""
    names = sorted(path.name for path in (out / "samples").iterdir())
    return tuple(Sampler(name, name, name, None, 1.0, 4) for name in names)


def by_cell(results: Results) -> dict[str, list[Row]]:
    """The rows of every cell, and of the held-out clips and the teacher's samplers."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in results.rows:
        found[row.name.rsplit("-s", 1)[0]].append(row)
    return found


def order(cell: str) -> tuple[bool, bool, list[float]]:
    """Samples of others first, then the full weights, then ranks and rates from small to great."""
    numbers = cell.removeprefix("r").split("x") if cell[0] == "r" else []
    return bool(numbers), cell == FULL_WEIGHTS, [float(number) for number in numbers]


def table(cells: dict[str, list[Row]]) -> tuple[list[str], bool]:
    """Its lines in Markdown, and whether the best adapters meet the target."""
    lines = [
        "| | seeds | captions right, % | Wasserstein | energy | captions, of full | Wasserstein nearness | energy nearness |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    full, best = cells[FULL_WEIGHTS], 0.0
    for cell in sorted(cells, key=order):
        rows = cells[cell]
        ratios = [
            _ratio(_mean(row.accuracy.caption for row in rows), _mean(row.accuracy.caption for row in full)),
            _ratio(_mean(row.wasserstein for row in full), _mean(row.wasserstein for row in rows)),
            _ratio(_mean(row.energy for row in full), _mean(row.energy for row in rows)),
        ]
        columns = [
            [f"{100 * row.accuracy.caption:.1f}" for row in rows],
            [f"{row.wasserstein:.3f}" for row in rows],
            [f"{row.energy:.3f}" for row in rows],
        ]
        compared = [f"{ratio:.2f}" if order(cell) >= order(FULL_WEIGHTS) else "" for ratio in ratios]
        lines.append(f"| {' | '.join([cell, str(len(rows)), *map(' / '.join, columns), *compared])} |")
        if order(cell)[0]:
            best = max(best, min(ratios))
    return lines, best >= TARGET


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _ratio(one: float, other: float) -> float:
    return one / other if other else math.nan  # nothing is right in the tiny form


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 0 when the best adapters meet the target, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELLS, help=f"(default: {' '.join(CELLS)})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the students (default: 0 1 2)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder, or one whose table is printed again")
    parser.add_argument("--tiny", action="store_true", help="figures that say nothing, in a minute")
    args = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        out = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "sweep"
        students = [student(cell, seed, tiny=args.tiny) for cell in args.cells for seed in args.seeds]
        told = story(out, students, tiny=args.tiny)
        samplers = kept(out) if out.exists() else told.tell()
        lines, met = table(by_cell(measure(out, told.extent, samplers, told.spent)))
    print(*lines, sep="\n")
    print(f"the best adapters have {TARGET} of the full weights' figures: {'yes' if met else 'NO'}")
    return 0 if met or args.tiny else 1


if __name__ == "__main__":
    sys.exit(main())
