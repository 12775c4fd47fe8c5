"""When the watch speaks in runs that are made to fail, and whether it keeps silent in good ones: DMD2 in the demo's world.

    python benchmarks/provoked_runs.py [--runs good-s0 high_rate ...] [--keep DIR]
    python benchmarks/provoked_runs.py --keep DIR    # goes on where it ended; all done, it prints the table again
    python benchmarks/provoked_runs.py --tiny        # everything once, with a few steps of each run

The teacher is that of the demo (`fastvideo-distill demo`); every run starts from it. Beside the watch each run samples videos of
48 captions as a validation does, and reads from their pixels how many show what the caption says. `DIR/NAME/metrics.jsonl` holds
all that was logged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvideo_core.cli.main import main as distill
from fastvideo_core.config.document import dump_yaml
from fastvideo_core.contracts.demo import DemoRun
from fastvideo_data.video_files import read_frames
from fastvideo_dmd2.demo import dmd2_demo
from fastvideo_tools.demo.clips import balanced
from fastvideo_tools.demo.measures import accuracy

STEPS, EVERY, SAMPLES = 60, 5, 48
GOOD = tuple(f"good-s{seed}" for seed in range(5))
START = "start"
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
"""Of the captions that were right at the first validation: fewer is a run that has lost a third."""


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
    if name == START:  # the student as it begins
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


def captions(run: Path) -> dict[int, float]:
    """By step: the part of a validation's videos that show what they were asked for."""
    found = {}
    for folder in sorted((run / "validation").glob("step-*")):
        clips = [read_frames(file) for file in sorted(folder.rglob("*.mp4"))]
        found[int(folder.name.removeprefix("step-"))] = accuracy(clips, balanced(len(clips))).caption
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=[START, *PROVOKED, *GOOD])
    parser.add_argument("--world", type=Path)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    out = args.keep
    out.mkdir(parents=True, exist_ok=True)
    prompts = [{"caption": c.caption, "seed": n} for n, c in enumerate(balanced(SAMPLES))]
    (out / "prompts.json").write_text(json.dumps({"data": prompts}))
    for name in args.runs:
        if (out / name / "metrics.jsonl").exists():
            continue
        path = out / f"{name}.yaml"
        path.write_text(dump_yaml(document(args.world, out, name, tiny=args.tiny)))
        status = distill(["train", str(path), *(part for one in args.plugin for part in ("--plugin", one))])
        print(name, "status", status, flush=True)
        print(name, captions(out / name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
