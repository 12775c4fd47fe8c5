"""When the watch speaks in runs that are made to fail, and whether it keeps silent in good ones: DMD2 in the demo's world.

    python benchmarks/provoked_runs.py [--runs good-s0 high_rate ...] [--keep DIR] [--world DIR]
    python benchmarks/provoked_runs.py --keep DIR    # goes on where it ended; all done, it prints the table again
    python benchmarks/provoked_runs.py --tiny        # everything once, with a few steps of each run

Every run starts from the teacher of `fastvideo-distill demo`, which is trained first, or is that of a demo in --world.
Beside the watch each run samples videos of 48 captions as a validation does; how many show what the caption says is read from
their pixels. `DIR/NAME/metrics.jsonl` holds all that was logged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fastvideo_core.checkpoint.storage import checkpoint_path
from fastvideo_core.cli.main import main as distill
from fastvideo_core.config.document import dump_yaml
from fastvideo_core.contracts.demo import DemoRun
from fastvideo_core.contracts.family import open_family
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.video_files import read_frames
from fastvideo_dmd2.demo import dmd2_demo
from fastvideo_finetune.demo import finetune_demo
from fastvideo_tools.demo.clips import CONTENTS, balanced
from fastvideo_tools.demo.measures import accuracy
from fastvideo_tools.demo.story import Extent, Recipe, Story, read_metrics

STEPS, EVERY, SAMPLES = 60, 5, 48
START = "start"
"""The student as it begins, for the captions that are right then."""
GOOD = tuple(f"good-s{seed}" for seed in range(5))
PROVOKED: Mapping[str, Mapping[str, Any]] = {
    "high_rate": {"training": {"learning_rate": 1.0e-2}},
    "weak_critic": {
        "method_config": {"generator_update_interval": 1},
        "roles": {"critic": {"trainable": True, "learning_rate": 1.0e-5}},
    },
    "wrong_shift": {"pipeline_config": {"flow_shift": 0.01}},
    "high_guidance": {"method_config": {"real_score_guidance_scale": 20.0}},
}
"""What each run that is made to fail has other than a good one."""

LOST = 2 / 3
"""Of the captions that were right before training: with fewer a third is lost."""


def document(world: Path, out: Path, name: str, *, tiny: bool = False) -> dict[str, Any]:
    """The run.yaml of a run."""
    student: DemoRun = dmd2_demo(fast=False).runs[0]
    changed = PROVOKED.get(name, {})
    steps = 10 if tiny else STEPS
    training = {
        **student.training,
        "seed": int(name.rpartition("-s")[2]) if name in GOOD else 0,
        "output_dir": str(out / name),
        "data_path": str(world / "latents"),
        "num_height": 32,
        "num_width": 32,
        "num_frames": 9,
        "max_train_steps": steps,
        "train_batch_size": 4 if tiny else 24,
        "logging_steps": 1,
        "training_state_checkpointing_steps": 20,
        "checkpoints_total_limit": 1,
        "log_validation": True,
        "validation_steps": STEPS if name in GOOD else 2 * EVERY,
        "validation_dataset_file": str(out / "prompts.json"),
        **changed.get("training", {}),
    }
    method_config = {**student.method_config, "validate_teacher": False, **changed.get("method_config", {})}
    if name == START:
        training |= {"max_train_steps": 2, "validation_steps": 2, "learning_rate": 0.0}
        method_config["generator_update_interval"] = 1
    roles = {role: {"path": str(world / "runs/teacher"), **options} for role, options in student.roles.items()}
    for role, options in changed.get("roles", {}).items():
        roles[role] |= options
    watch = {"every": EVERY, "prompts": 4 if tiny else 24, "seeds": 2, "reference_steps": 4 if tiny else 20}
    return {
        "recipe": {"family": "wan", "method": "dmd2"},
        "roles": roles,
        "training": training,
        "pipeline_config": {"negative_prompt": "", **student.pipeline_config, **changed.get("pipeline_config", {})},
        "method_config": method_config,
        "callbacks": {"quality_watch": watch},
    }


def make_world(world: Path, *, tiny: bool) -> None:
    """Clips, their latents and the teacher, as the demo makes them."""
    teacher = finetune_demo(fast=False)
    if tiny:
        (run,) = teacher.runs
        teacher = replace(
            teacher, runs=(replace(run, training={**run.training, "max_train_steps": 5, "lr_warmup_steps": 0}),)
        )
    family = open_family("wan", PluginRegistry(), "demo").demo(fast=tiny)
    extent = Extent(CONTENTS, clips=48 if tiny else 1920, samples=1, many_steps=2, guided=False, shown=())
    Story(Recipe("wan", family, "finetune", teacher, "finetune", teacher), world, extent, 0, distill).tell()


def captions(run: Path) -> dict[int, float]:
    """By step: the part of a validation's videos that show what they were asked for."""
    found = {}
    for folder in sorted((run / "validation").glob("step-*")):
        clips = [read_frames(file) for file in sorted(folder.rglob("*.mp4"))]
        found[int(folder.name.removeprefix("step-"))] = accuracy(clips, balanced(len(clips))).caption
    return found


class Spoken(NamedTuple):
    """The first step at which the watch speaks, and of what: a measure of the student's samples, or of the teacher's."""

    step: int
    of: str


def spoken(run: Path) -> Spoken | None:
    """When the watch spoke in a run; None where it did not."""
    for line in read_metrics(run / "metrics.jsonl"):
        own = {name.removeprefix("quality/"): value for name, value in line.items() if name.startswith("quality/")}
        for who, prefix in (("teacher", "reference_"), ("student", "")):
            names = [
                prefix + name for name in ("mean", "spread", "variation", "seeds", "motion") if prefix + name in own
            ]
            if not names:
                continue
            worst = max(names, key=lambda name: abs(own[name]))
            if own[f"{prefix}warnings"] > 0:
                name = worst.removeprefix("reference_")
                amount = f"{own[worst]:.2f} off" if name == "mean" else f"x {math.exp(own[worst]):.2f}"
                return Spoken(line["step"], f"{who}: {name} {amount}")
    return None


def table(out: Path, runs: list[str]) -> tuple[list[str], bool]:
    """Its lines in Markdown, and whether the watch spoke where it should, no later than captions were lost, and nowhere else."""
    start = captions(out / START).popitem()[1]
    lines = ["| run | the watch speaks at step | of | captions right, a third fewer at step | at the end, % |"]
    lines.append("|---|---:|---|---:|---:|")
    met = True
    for name in runs:
        right, said = captions(out / name), spoken(out / name)
        lost = next((step for step, part in right.items() if part < LOST * start), None)
        if name in PROVOKED:
            met = met and said is not None and said.step <= (lost or math.inf)
        elif name in GOOD:
            met = met and said is None
        of = said.of if said else ""
        columns = [
            name,
            str(said.step) if said else "never",
            of,
            str(lost or "never"),
            f"{100 * [*right.values()][-1]:.0f}",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return lines, met


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 0 when the watch spoke where it should and nowhere else, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [START, *PROVOKED, *GOOD]
    parser.add_argument("--runs", nargs="+", choices=every, default=every, metavar="RUN", help=" ".join(every))
    parser.add_argument("--world", type=Path, metavar="DIR", help="a folder of `fastvideo-distill demo` to start from")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder, or one to go on in")
    parser.add_argument("--tiny", action="store_true", help="figures that say nothing, in a minute")
    args = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        out = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "runs"
        out.mkdir(parents=True, exist_ok=True)
        world = args.world or out / "world"
        if not world.exists():
            make_world(world, tiny=args.tiny)
        prompts = [{"caption": one.caption, "seed": number} for number, one in enumerate(balanced(SAMPLES))]
        (out / "prompts.json").write_text(
            json.dumps({"data": prompts[: 4 if args.tiny else SAMPLES]}), encoding="utf-8"
        )
        for name in args.runs:
            run = document(world, out, name, tiny=args.tiny)
            if checkpoint_path(out / name, run["training"]["max_train_steps"]).exists():
                continue
            shutil.rmtree(out / name, ignore_errors=True)  # of one that was ended
            path = out / f"{name}.yaml"
            path.write_text(dump_yaml(run), encoding="utf-8")
            if status := distill(["train", str(path)]):
                return status
        done = [name for name in every if captions(out / name)]
        lines, met = table(out, done) if START in done else ([], False)
    print(*lines, sep="\n")
    print(f"the watch speaks first in what fails, and not in what is good: {'yes' if met else 'NO'}")
    return 0 if met or args.tiny else 1


if __name__ == "__main__":
    sys.exit(main())
