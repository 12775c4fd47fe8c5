"""Runs whose processes share the tokens of each sample, and what a test looks at of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastvideo_core.distributed import context
from fastvideo_testing.ranks import run_ranks
from fastvideo_testing.runs import build_run
from tests.distributed.workers import full, own_folder, save, weights


def train(folder: Path, runs: Mapping[str, dict[str, Any]], *, world: int, size: int = 1) -> dict[str, dict[str, Any]]:
    """What `processes` saw of each run on so many processes, of which each `size` share a sample, by name."""
    run_ranks(
        f"{__name__}:processes", {"folder": folder, "runs": dict(runs), "world": world, "size": size}, world_size=world
    )
    return {name: torch.load(folder / f"{name}.pt") for name in runs}


def processes(folder: Path, runs: dict[str, dict[str, Any]], *, world: int, size: int) -> None:
    """Trains each; its losses by step, the gradients of its first update, its weights. `sgd` of a run: it takes plain steps."""
    warnings.filterwarnings("error", message=".* is deprecated", category=FutureWarning)
    for name, run in runs.items():
        given = {"num_gpus": world, "sequence_parallel": size, "output_dir": str(folder / name)}
        kinds = {"sgd": run.pop("sgd", False)}
        runtime = build_run(own_folder(folder / name), {**run, "training": {**given, **run["training"]}})
        if kinds["sgd"]:
            for handle in runtime.method.bundle:
                for key, optimizer in handle.optimizers.items():
                    rate = optimizer.param_groups[0]["lr"]
                    handle.optimizers[key] = torch.optim.SGD(handle.trainable_parameters(), lr=rate)
                handle.lr_schedulers.clear()
        gradients: dict[str, torch.Tensor] = {}
        step = runtime.method.optimizers_schedulers_step

        def noting(iteration: int, method: Any = runtime.method, step: Any = step, seen: Any = gradients) -> None:
            if not seen:
                named = ((f"{h.name}.{key}", p.grad) for h in method.bundle for key, p in h.named_parameters())
                seen |= {key: full(gradient) for key, gradient in named if gradient is not None}
            step(iteration)

        runtime.method.optimizers_schedulers_step = noting
        runtime.train()
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        losses = {
            line["step"]: {key: value for key, value in line.items() if "loss" in key or key == "grad_norm"}
            for line in lines
        }
        context.barrier()
        save(folder / f"{name}.pt", {"losses": losses, "gradients": gradients, "weights": weights(runtime.method)})
