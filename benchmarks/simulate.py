"""What `simulate` foretells, against what was measured on one H200 (benchmarks/README.md, "GPU"): seconds per iteration.

    python benchmarks/simulate.py

From configuration files alone, on the CPU. Part of the GPU's FLOP/s that is achieved (Hardware.compute_achieved) and time of an
operator are chosen by the rows of finetune; the others are foretold with them.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memory_table import write_data, write_outline

from fastvideo_core import load_run_config
from fastvideo_core.dispatch.examine import examine
from fastvideo_core.registry import PluginRegistry
from fastvideo_tools.simulate.figures import copied
from fastvideo_tools.simulate.hardware import KNOWN
from fastvideo_tools.simulate.iterate import FORWARD
from fastvideo_tools.simulate.meter import Part
from fastvideo_tools.simulate.simulation import Kind, Simulation, simulate
from fastvideo_tools.simulate.timing import Shape, times


@dataclass(frozen=True)
class Measured:
    """A run of Wan 1.3B on one H200: latents of its videos, and seconds by the roles that an iteration updated.

    Args:
        drawn: the student's calls without a graph in the mean of the iterations that were timed, by their TFLOP.
    """

    name: str
    method: str
    latents: tuple[int, int, int]
    checkpointing: str | None
    seconds: dict[tuple[str, ...], float]
    drawn: dict[tuple[str, ...], float] = field(default_factory=dict)


STUDENT = Part("student", FORWARD)
LARGE, SMALL = (20, 60, 104), (5, 32, 56)
BOTH, CRITIC = ("student", "critic"), ("critic",)
ROWS = (
    Measured("480p, 77 frames, finetune", "finetune", LARGE, "full", {("student",): 2.726}),
    Measured("480p, 77 frames, dmd2", "dmd2", LARGE, "full", {BOTH: 8.226, CRITIC: 3.698}, {BOTH: 1.5, CRITIC: 1.5}),
    Measured("256 x 448, 17 frames, finetune", "finetune", SMALL, None, {("student",): 0.242}),
    Measured("256 x 448, 17 frames, dmd2", "dmd2", SMALL, None, {BOTH: 0.889, CRITIC: 0.492}, {BOTH: 1.4, CRITIC: 2.4}),
)


def run_of(folder: Path, row: Measured) -> dict[str, Any]:
    """The run as benchmarks/gpu.py makes it."""
    _, height, width = row.latents
    trained: dict[str, Any] = {"path": str(folder / "1.3B"), "trainable": True}
    roles = {"student": trained}
    if row.method == "dmd2":
        roles |= {"teacher": {"path": str(folder / "1.3B"), "trainable": False}, "critic": trained}
    settings = {"generator_update_interval": 2, "dmd_denoising_steps": [1000, 750, 500, 250]}
    return {
        "recipe": {"family": "wan", "method": row.method},
        "roles": roles,
        "training": {
            "output_dir": str(folder / "out"),
            "data_path": str(folder / f"data-{height}"),
            "max_train_steps": 100,
            "mixed_precision": "bf16",
            "enable_gradient_checkpointing_type": row.checkpointing,
            "num_height": 8 * height,
            "num_width": 8 * width,
            "num_frames": 4 * row.latents[0] - 3,
        },
        "method_config": settings if row.method == "dmd2" else {},
    }


def seconds_of(found: Simulation, kind: Kind, row: Measured) -> float:
    """An iteration of the kind, at the exit steps that were drawn when it was timed."""
    if kind.due in row.drawn:
        kind = replace(kind, calls={**kind.calls, STUDENT: row.drawn[kind.due]})
    others = [other for other in found.kinds if other is not kind]
    return times(kind.mean(others), Shape(1, 1, 1), KNOWN["H200"], copied(found.estimate, kind)).overlapped


def main() -> int:
    """Print the table; 1 where a row of 480p is off by more than 15 %."""
    worst = 0.0
    print("| Wan 1.3B on one H200 | iteration | measured s | simulated s | ratio | peak GiB | `check` GiB |")
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder, registry = Path(name), PluginRegistry()
        write_outline(folder, "1.3B")
        for latents in (LARGE, SMALL):
            write_data(folder / f"data-{latents[1]}", {"vae_latent": (16, *latents)})
        for row in ROWS:
            cfg = load_run_config(run_of(folder, row), registry)
            found = simulate(examine(cfg, registry, starts=False)[0])
            for kind in found.kinds:
                measured, simulated = row.seconds[kind.due], seconds_of(found, kind, row)
                ratio = simulated / measured
                worst = max(worst, abs(ratio - 1)) if row.latents == LARGE else worst
                memory = f"{found.peak / 2**30:.1f} | {found.estimate.peak / 2**30:.1f}"
                updates = " + ".join(kind.due)
                print(f"| {row.name} | {updates} | {measured} | {simulated:.3f} | {ratio:.3f} | {memory} |", flush=True)
    print(f"\nat 480p off by at most {worst:.1%}")
    return 0 if worst <= 0.15 else 1


if __name__ == "__main__":
    sys.exit(main())
