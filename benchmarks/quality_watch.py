"""What the watch costs at its defaults: its looks and its reference against the steps of the same run.

    python benchmarks/quality_watch.py [--looks 8] [--methods dmd2 finetune]

A tiny Wan on one process and one sample a step, where a look is as expensive as it can be beside a step. The watch looks more
often than by default; the cost is that of the median look, every 200 steps, and of the reference, once in 1,000 steps. CPU time.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from trainer import LATENT, SEED, SIZES, write_data

from fastvideo_core import build_runtime
from fastvideo_evaluate.watch.callback import DATA_ROWS, QualityWatch
from fastvideo_evaluate.watch.config import QualityWatchConfig
from fastvideo_wan.tiny import write_tiny_pipeline

STEPS, TARGET = 1000, 0.03
EVERY = 4  # looks, here
ROLES: Mapping[str, Mapping[str, bool]] = {
    "dmd2": {"student": True, "teacher": False, "critic": True},
    "finetune": {"student": True},
}


class Clock:
    """CPU seconds inside of functions, by name."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[name].append(time.process_time() - started)

        return call


def measure(folder: Path, pipeline: Path, data: Path, method: str, looks: int) -> tuple[float, float, float, float]:
    """Seconds of a step without the watch, of a look, of the reference; and of what keeps the rows."""
    frames, height, width = LATENT[1:]
    config = {
        "recipe": {"family": "wan", "method": method},
        "roles": {role: {"path": str(pipeline), "trainable": trained} for role, trained in ROLES[method].items()},
        "training": {
            "seed": SEED,
            "output_dir": str(folder / method),
            "data_path": str(data),
            "max_train_steps": DATA_ROWS + EVERY * looks,
            "learning_rate": 1e-6,
            "num_height": height * 8,
            "num_width": width * 8,
            "num_latent_t": frames,
        },
        "callbacks": {"quality_watch": {"every": EVERY, "keep_best": False}},
    }
    path = folder / f"{method}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    clock = Clock()
    timed = {
        name: clock.timed(name, getattr(QualityWatch, name)) for name in ("_look", "_make_reference", "before_round")
    }
    with mock.patch.multiple(QualityWatch, **timed):
        runtime = build_runtime(path)
        started = time.process_time()
        runtime.train()
        spent = time.process_time() - started
    totals = {name: sum(values) for name, values in clock.spent.items()}
    step = (spent - sum(totals.values())) / config["training"]["max_train_steps"]  # type: ignore[index]  # a literal above
    return step, statistics.median(clock.spent["_look"]), totals["_make_reference"], totals["before_round"]


def main() -> int:
    """Run the benchmark; 0 when the watch costs no more than the target, 1 when it does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=8)
    parser.add_argument("--methods", nargs="+", choices=list(ROLES), default=list(ROLES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    every, met = QualityWatchConfig().every, True
    lines = [
        "| method | step, ms | look, steps | reference, steps | of a run of 1,000 steps |",
        "|---|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_pipeline(folder / "wan", seed=SEED, **SIZES)
        data = write_data(folder / "data")
        for method in args.methods:
            step, look, reference, rows = measure(folder, folder / "wan", data, method, args.looks)
            cost = (look * (STEPS / every + 1) + reference + rows) / (STEPS * step)
            met = met and cost <= TARGET
            lines.append(
                f"| {method} | {1e3 * step:.1f} | {look / step:.1f} | {reference / step:.1f} | {100 * cost:.2f} % |"
            )
    print(*lines, sep="\n")
    print(f"at most {100 * TARGET:g} %: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
