"""Processes that share a sample have equal data ranks, and draw and read alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.checkpoint.rank_state import collect_rng, rng_of_other_world
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.distributed.context import Mesh
from fastvideo_core.errors import ConfigError
from fastvideo_testing.ranks import fake_process_group
from fastvideo_testing.runs import build_run, resolve_run, toy_world
from fastvideo_testing.toy import Mixture, ToyConfig, ToyData, ToyFamily

RUN: dict[str, Any] = {
    "recipe": {"family": "toy", "method": "toy"},
    "roles": {
        "student": {"path": "toy/student", "trainable": True},
        "teacher": {"path": "toy/teacher", "trainable": False},
    },
    "training": {"max_train_steps": 2, "train_batch_size": 2},
}


def draws_of(rank: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What one of four processes trains on and draws, two at a time sharing samples; also after a resume with another number."""
    with fake_process_group(rank, 4), toy_world(), monkeypatch.context() as patch:
        patch.setattr(ToyFamily, "splits_tokens", True)
        patch.setattr(
            "fastvideo_core.dispatch.runtime.shard_roles", lambda *_: None
        )  # nothing is sharded in a fake group
        training = {**RUN["training"], "output_dir": str(folder / "out"), "num_gpus": 4, "sequence_parallel": 2}
        method = build_run(folder, {**RUN, "training": training}).method
        noise = torch.rand(3, generator=method.rng.local("noise"))
        later = rng_of_other_world(method, collect_rng(method), 7)["method/local/noise"]
        data = ToyData(ToyConfig(data=Mixture()), seed=0, batch_size=2, mesh=method.mesh)
        return [noise, later, *[next(iter(data))["vae_latent"] for _ in range(2)]]


def test_without_sequence_parallelism_every_process_has_samples_of_its_own() -> None:
    training = TrainingArgs(output_dir="out", max_train_steps=1)
    with fake_process_group(1, 4):
        assert Mesh.current(training) == Mesh(data_rank=1, data_size=4)
    assert Mesh.current(training) == Mesh(data_rank=0, data_size=1)


def test_a_family_whose_networks_cannot_share_tokens_is_refused(tmp_path) -> None:
    training = {**RUN["training"], "output_dir": str(tmp_path / "out"), "num_gpus": 4, "sequence_parallel": 2}
    with toy_world(), pytest.raises(ConfigError, match="networks of the family 'toy' cannot share their tokens"):
        resolve_run(tmp_path, {**RUN, "training": training})


def test_processes_that_share_samples_draw_and_read_alike(tmp_path, monkeypatch) -> None:
    first, second, third = (draws_of(rank, tmp_path, monkeypatch) for rank in (0, 1, 2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(first, third, strict=True))
