"""A run that is killed and resumed is, bit for bit, the run that was not, on every installed family."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.checkpoint.storage import TENSORS
from fastvideo_core.checkpoint.tensors import StoredTensors
from tests.conftest import distill, write_run
from tests.families import ALL_KINDS, TinyFamily, tiny_family
from tests.methods import ALL, ON_TRAJECTORIES, sections

__all__ = ["tiny_family"]

KILLER = """
import os, signal, time
from fastvideo_core import Callback, PluginConfig, hookimpl, register_callback

class KillerConfig(PluginConfig):
    at: int
    after: str

@register_callback("killer", config=KillerConfig)
class Killer(Callback):
    @hookimpl
    def step_end(self, step):
        if step == self.config.at:
            while not os.path.isdir(self.config.after):  # it is written in the background
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
"""
TIMINGS = {"seconds_per_step", "samples_per_second", "peak_memory_bytes"}


def run_yaml(method: str, tiny: TinyFamily, *, workers: int, accumulation: int) -> dict[str, Any]:
    options = {"generator_update_interval": 3} if method == "dmd2" else {}
    return {
        "recipe": {"family": tiny.family, "method": method},
        **sections(method, lambda role: str(tiny.base), **options),
        "training": {
            "seed": 7,
            "data_path": str(tiny.trajectories() if method in ON_TRAJECTORIES else tiny.data),
            "max_train_steps": 20,
            "train_batch_size": 2,
            "gradient_accumulation_steps": accumulation,
            "dataloader_num_workers": workers,
            "learning_rate": 1e-3,
            "lr_scheduler": "cosine",
            "lr_warmup_steps": 3,
            "weight_decay": 0.01,
            "training_cfg_rate": 0.3,
            "training_state_checkpointing_steps": 10,
            "num_height": tiny.clip.height,
            "num_width": tiny.clip.width,
            "num_frames": tiny.clip.num_frames,
        },
        "callbacks": {"ema": {"decay": 0.9}},
    }


def state_of(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, bytes]]:
    stored = StoredTensors(checkpoint / TENSORS)
    tensors = {key: torch.empty(entry.size, dtype=entry.properties.dtype) for key, entry in stored.index.items()}
    stored.read(tensors)
    rng = {path.name: path.read_bytes() for path in (checkpoint / "rng").iterdir()}
    return tensors, json.loads((checkpoint / "state.json").read_text())["state"], rng


def is_timing(key: str) -> bool:
    return key in TIMINGS or key.startswith("seconds/")


def losses_of(output_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not is_timing(key)} for line in lines]


READING = [(0, 2), (2, 2)]
"""Workers and accumulated rounds; how data is read depends on neither family nor method, so one pair has all of these.
Two workers without accumulated rounds are what the other kinds have."""

WAN, *OTHERS = sorted(ALL_KINDS, key=lambda kind: str(kind) != "wan")
CASES = [(method, WAN, *reading) for method in ALL for reading in (READING if method == "dmd2" else READING[-1:])]
CASES += [(method, kind, 2, 1) for index, kind in enumerate(OTHERS) for method in list(ALL)[index :: len(OTHERS)]]
"""Every method on Wan, and on one of the other kinds, which take turns: no method knows what it is called with."""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kind", "workers", "accumulation"), CASES, ids=str)
def test_ten_steps_kill_resume_ten_steps_are_twenty_steps(tmp_path, tiny_family, method, kind, workers, accumulation):
    run = run_yaml(method, tiny_family(kind), workers=workers, accumulation=accumulation)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    plugin = tmp_path / "killer.py"
    plugin.write_text(KILLER)

    run["training"]["output_dir"] = str(whole)
    done = distill(write_run(tmp_path / "whole.yaml", run), cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    run["training"]["output_dir"] = str(broken)
    killed_run = {
        **run,
        "callbacks": {**run["callbacks"], "killer": {"at": 13, "after": str(broken / "checkpoint-000010")}},
    }
    killed = distill(write_run(tmp_path / "killed.yaml", killed_run), "--plugin", plugin, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in sorted(broken.glob("checkpoint-*"))] == ["checkpoint-000010"]

    resumed = distill(write_run(tmp_path / "resumed.yaml", run), "--resume", "latest", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr

    tensors, skeleton, rng = state_of(whole / "checkpoint-000020")
    tensors_again, skeleton_again, rng_again = state_of(broken / "checkpoint-000020")
    assert tensors.keys() == tensors_again.keys()
    assert [key for key in tensors if not torch.equal(tensors[key], tensors_again[key])] == []
    assert any("exp_avg_sq" in key for key in tensors)
    assert any("ema" in key for key in tensors)
    assert skeleton == skeleton_again
    assert rng == rng_again
    assert losses_of(whole) == losses_of(broken)
    assert [line["step"] for line in losses_of(broken)] == list(range(1, 21))
