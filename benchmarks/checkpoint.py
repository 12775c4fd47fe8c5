"""What a checkpoint costs: the stall of training when it is written in the background, against waiting for the disk, and
waiting against writing the same bytes with safetensors.

All write to one folder, take turns, and sync what they wrote. A stall is what the training thread does not train: the
call of `save`, and whatever it waits for; the background's write is complete before the next turn begins.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fastvideo_core import PluginConfig, RoleConfig, RunConfig, TrainingArgs
from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.callbacks.ema import EMACallback
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.checkpoint.training_state import RunState
from fastvideo_core.checkpoint.tree import split
from fastvideo_core.config.run import RecipeConfig
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, RoleManager

STALL, BLOCKING = 0.15, 1.3
"""Targets: background stall over blocking stall, and blocking stall over safetensors."""


class Trained(DistillMethod):
    """One trained network with AdamW's moments; as much state as a run of that size has."""

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> Any:
        raise NotImplementedError("nothing is trained here")


def trained(folder: Path, megabytes: int) -> tuple[Trained, CallbackManager]:
    """A method whose checkpoint has about so many megabytes: weights, two moments and EMA, float32 each."""
    cfg = RunConfig(
        recipe=RecipeConfig(family="bench", method="bench"),
        roles={"student": RoleConfig(path="bench", trainable=True)},
        training=TrainingArgs(output_dir=str(folder), max_train_steps=1),
        pipeline_config=PluginConfig(),
        method_config=PluginConfig(),
        callbacks={},
        source="run.yaml",
    )
    width = 1024
    blocks = max(1, round(megabytes * 2**20 / 4 / 4 / width**2))
    network = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(blocks)))
    method = Trained(
        cfg, RoleManager({"student": RoleHandle("student", {"net": network}, "bench", trainable=True)}), None
    )
    optimizer = torch.optim.AdamW(method.parameters())
    method.bundle["student"].optimizers["adamw"] = optimizer
    for parameter in method.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    callbacks = CallbackManager({"ema": EMACallback(EMAConfig())})
    callbacks.hook.train_start(method=method, start_step=0)
    return method, callbacks


def manager(folder: Path, method: Trained, callbacks: CallbackManager, *, background: bool) -> CheckpointManager:
    settings = {"output_dir": str(folder), "checkpoints_total_limit": 1, "async_checkpointing": background}
    made = CheckpointManager(replace(method.cfg, training=method.cfg.training.model_copy(update=settings)), {})
    made.attach(method, callbacks, [])
    return made


def with_safetensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """The bytes in one file, synced with its folder."""
    path = folder / "state.safetensors"
    safetensors.torch.save_file(tensors, path)
    for target in (path, folder):
        descriptor = os.open(target, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def measure(megabytes: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Seconds per round of each way; the first round, in which memory and files are made, is left out."""
    method, callbacks = trained(folder, megabytes)
    tensors, _ = split(RunState(method, callbacks, []).collect())
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    blocking = manager(folder / "blocking", method, callbacks, background=False)
    background = manager(folder / "background", method, callbacks, background=True)
    (folder / "safetensors").mkdir()
    found: dict[str, list[float]] = {"safetensors": [], "blocking": [], "background": [], "background, complete": []}
    turns = ["safetensors", "blocking", "background"]
    for step in range(1, rounds + 2):
        turns = [*turns[1:], turns[0]]  # so that none always follows the same other one
        for name in turns:
            if name == "safetensors":
                found[name].append(seconds(lambda: with_safetensors(folder / "safetensors", tensors)))
            elif name == "blocking":
                found[name].append(seconds(lambda step=step: blocking.save(step)))  # type: ignore[misc]
            else:
                stall = seconds(lambda step=step: background.save(step))  # type: ignore[misc]
                found[name].append(stall)
                found["background, complete"].append(stall + seconds(background.finish))
            os.sync()
    return {name: values[1:] for name, values in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024, help="size of a checkpoint")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", type=Path, help="where to write; a temporary folder by default")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=args.dir))
    try:
        found = measure(args.megabytes, args.rounds, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"| {args.megabytes} MB, median of {args.rounds} | seconds | MB/s |\n|---|---:|---:|")
    for name, values in found.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.3f} | {args.megabytes / median:.0f} |")
    # the ratio of neighbouring turns, so that a disk that is slow for a while is slow for both
    stall = statistics.median(a / b for a, b in zip(found["background"], found["blocking"], strict=True))
    blocking = statistics.median(a / b for a, b in zip(found["blocking"], found["safetensors"], strict=True))
    print(f"\n| | ratio | target |\n|---|---:|---:|\n| stall, background / blocking | {stall:.3f} | {STALL} |")
    print(f"| blocking / safetensors | {blocking:.3f} | {BLOCKING} |")
    return 0 if stall <= STALL and blocking <= BLOCKING else 1


if __name__ == "__main__":
    sys.exit(main())
