"""Runs of several processes whose validation is asked to stop, or fails, on one of them or on all."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_core.distributed import context
from fastvideo_core.errors import FastVideoError
from fastvideo_core.registry import register_model
from fastvideo_core.training import validation
from fastvideo_data.video_validator import SamplingValidator
from fastvideo_testing.isolation import isolated_registrations
from fastvideo_testing.runs import build_run
from fastvideo_testing.toy import ToyConfig, ToyFamily
from tests.distributed.workers import own_folder

STEPS, PROMPTS, CALLS = 4, 3, 5
"""Of training, of its validation after step 2, and of each prompt."""

At = Callable[[str, int], None]


class Sampler:
    """Calls the network, which is sharded; `at` is told of a call ("call"), of its inside, and of what follows the last one."""

    def __init__(self, at: At) -> None:
        self.at = at
        self.calls = 0

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        network = request.sample_handle.modules["transformer"]
        inside = network.net[1].register_forward_pre_hook(lambda *_: self.at("inside", self.calls))
        try:
            for _ in range(CALLS):
                self.calls += 1
                self.at("call", self.calls)
                network(torch.zeros(1, 2), torch.ones(1), torch.ones(1, 1))
        finally:
            inside.remove()
        self.at("decode", self.calls)
        return SampledVideo(torch.zeros(3, 16, 16, 3, dtype=torch.uint8), 8.0)


def fails(where: str, number: int, *ranks: int) -> At:
    def at(place: str, call: int) -> None:
        if (place, call) == (where, number) and context.rank() in ranks:
            raise RuntimeError(f"{where} {number} failed")

    return at


def sends(number: signal.Signals, rank: int) -> At:
    def at(place: str, call: int) -> None:
        if (place, call) == ("call", CALLS + 2) and context.rank() == rank:
            os.kill(os.getpid(), number)

    return at


SCENES: dict[str, tuple[At, str]] = {
    "terminated": (sends(signal.SIGTERM, 1), "skip"),
    "hung up": (sends(signal.SIGHUP, 0), "skip"),
    "between calls": (fails("call", CALLS + 2, 1), "skip"),
    "decoding": (fails("decode", 2 * CALLS, 1), "skip"),
    "may not fail": (fails("call", CALLS + 2, 1), "error"),
    "inside all": (fails("inside", CALLS + 2, 0, 1), "skip"),
    "inside one": (fails("inside", CALLS + 2, 1), "skip"),  # the last one: nothing goes on after it
}


def play(out: Path) -> None:
    """All scenes, one after the other; what became of each goes to `out`/rank-N.json."""
    found = {}
    for name, (at, on_error) in SCENES.items():
        if name == "inside one":
            validation._PATIENCE = 1.0
        found[name] = _scene(out / name.replace(" ", "-"), Sampler(at), on_error)
        (out / f"rank-{context.rank()}.json").write_text(json.dumps(found))


def _scene(folder: Path, sampler: Sampler, on_error: str) -> dict[str, Any]:
    training = {
        "output_dir": str(folder),
        "max_train_steps": STEPS,
        "learning_rate": 1e-2,
        "num_gpus": context.world_size(),
        "log_validation": True,
        "validation_steps": 2,
        "validation_sampling_steps": str(CALLS),
        "on_validation_error": on_error,
        "validation_dataset_file": str(folder.parent / "prompts.txt"),
        "training_state_checkpointing_steps": 0,
    }
    run = {
        "recipe": {"family": "toy", "method": "finetune"},
        "roles": {"student": {"path": "toy/base", "trainable": True}},
        "training": training,
        "callbacks": {"ema": {"decay": 0.5}},
    }
    prompts = [ValidationPrompt(f"prompt {number}") for number in range(1, PROMPTS + 1)]

    class Sampled(ToyFamily):
        def build(self, cfg: RunConfig) -> ModelComponents:
            return replace(super().build(cfg), validator=SamplingValidator(sampler, prompts, seed=0))

        def validates(self) -> bool:
            return True

    with isolated_registrations():
        register_model("toy", config=ToyConfig)(Sampled)
        runtime = build_run(own_folder(folder), run)
        error: FastVideoError | None = None
        try:
            runtime.train()
        except FastVideoError as ended:
            error = ended
    return {
        "error": type(error).__name__ if error else None,
        "text": str(error or ""),
        "status": error.exit_code if error else 0,
        "calls": sampler.calls,
        "checkpoints": sorted(path.name for path in folder.glob("checkpoint-*")),
        "videos": sorted(path.name for path in folder.glob("validation/step-000002/*.mp4")),
    }
