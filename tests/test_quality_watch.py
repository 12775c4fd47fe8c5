"""The watch beside adapters on a shared base, without a teacher, and in two processes that share their networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.cli.main import main
from fastvideo_core.errors import ConfigError
from tests.distributed.ranks import run_workers
from tests.distributed.test_adversarial import run_of as of_dmd2
from tests.test_shared_base import LORA, run_of, started

WATCH = {"quality_watch": {"every": 1, "reference_steps": 2}}


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvideo_evaluate.watch.callback.DATA_ROWS", 2)


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_shared_base_trains_to_the_bit_as_without_the_watch(
    tmp_path: Path, tiny_wan: Path, latent_data: Path
) -> None:
    ends = []
    for name, callbacks in (("without", {}), ("with", WATCH)):
        run = run_of(tiny_wan, latent_data, tmp_path / name / "out", share=True, train_batch_size=2)
        runtime = started(tmp_path / name, {**run, "callbacks": callbacks})
        runtime.train()
        ends.append(
            {key: one.detach().clone() for handle in runtime.method.bundle for key, one in handle.named_parameters()}
        )
    assert all(torch.equal(one, ends[1][name]) for name, one in ends[0].items())
    first, *_, last = logged(tmp_path / "with" / "out")
    assert first["quality/mean"] != last["quality/mean"]  # it is the student's adapters that are looked at


def test_a_student_without_a_teacher_is_compared_with_the_data(
    tmp_path: Path, tiny_wan: Path, latent_data: Path
) -> None:
    run: dict[str, Any] = {
        "recipe": {"family": "wan", "method": "finetune"},
        "roles": {"student": {"path": str(tiny_wan), "trainable": True}},
        "training": {
            "data_path": str(latent_data),
            "output_dir": str(tmp_path / "out"),
            "max_train_steps": 2,
            "train_batch_size": 2,
        },
        "callbacks": {"quality_watch": {"every": 1}},
    }
    started(tmp_path, run).train()
    found = {name.removeprefix("quality/") for name in logged(tmp_path / "out")[-1] if name.startswith("quality/")}
    assert found == {"mean", "spread", "variation", "motion", "drift", "warnings"}
    run["callbacks"]["quality_watch"]["reference_steps"] = 3
    with pytest.raises(ConfigError, match="there is no role 'teacher' to be sampled"):
        started(tmp_path, run)


def test_the_best_checkpoint_is_sampled_and_exported_by_its_path(
    tmp_path: Path, tiny_wan: Path, latent_data: Path
) -> None:
    run = run_of(tiny_wan, latent_data, tmp_path / "out", share=False, train_batch_size=2)
    started(tmp_path, {**run, "callbacks": WATCH}).train()
    best = tmp_path / "out" / "best"
    size = ("--height", "32", "--width", "32", "--num-frames", "9")
    assert main(["sample", str(best), "--prompt", "a", *size, "--out", str(tmp_path / "videos")]) == 0
    assert main(["export", str(best), str(tmp_path / "exported")]) == 0
    assert (tmp_path / "videos" / "00.mp4").is_file()


@pytest.mark.distributed
@pytest.mark.slow
def test_two_processes_that_share_networks_say_the_same_and_train_as_without(
    tmp_path: Path, tiny_wan: Path, latent_data: Path
) -> None:
    runs = {}
    for name, callbacks in (("without", {}), ("with", WATCH)):
        run = of_dmd2(
            tiny_wan, latent_data, tmp_path / name, 2, "critic", train_batch_size=8, gradient_accumulation_steps=4
        )
        for role in ("student", "critic"):
            run["roles"][role] |= {"lora": LORA, "share": "teacher"}
        runs[name] = {**run, "callbacks": callbacks}
    run_workers(2, "runs", tmp_path, runs=runs)
    without, watched = (torch.load(tmp_path / f"{name}.pt")["trained"] for name in runs)
    assert all(torch.equal(one, watched[name]) for name, one in without.items())
    assert [line["quality/warnings"] for line in logged(tmp_path / "with")] == [0, 0]
