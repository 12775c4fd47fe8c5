"""What trains on a shared base as on three: every kind of family, method and optimizer, wherever it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import Kind, tiny_family
from tests.methods import sections
from tests.test_shared_base import ADVERSARIAL, LORA, stored, trained

__all__ = ["tiny_family"]

pytestmark = pytest.mark.slow
LTX, SOUND, TWO = Kind("ltx", {"generation": 1}), Kind("ltx", {"generation": 2}), Kind("wan", {"variant": "a14b"})
SGD = {"lr": 0.1, "momentum": 0.9}


def run_of(
    kind: Kind, base: Path, data: Path, out: Path, method: str, *, share: bool, **options: Any
) -> dict[str, Any]:
    run = sections(method, lambda _: str(base), **options)
    if method == "kd":
        run |= {"method_config": {"target": "guidance"}}
        run["roles"]["teacher"] = {"path": str(base), "trainable": False}
    for role in run["roles"].values():
        if role["trainable"]:
            role |= {"lora": LORA} | ({"share": "teacher"} if share else {})
    training = {"seed": 1, "data_path": str(data), "output_dir": str(out), "learning_rate": 0.01}
    training |= {"enable_gradient_checkpointing_type": "full", "max_train_steps": 5 if method == "rcm" else 3}
    training |= {"validation_guidance_scale": "1"} if method == "kd" else {}
    return {"recipe": {"family": kind.family, "method": method}, **run, "training": training}


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Of two runs, what they stored."""
    expected, found = stored(one), stored(other)
    assert expected.keys() == found.keys()
    assert expected
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (LTX, "consistency"),
        (LTX, "rcm"),
        (SOUND, "dmd2"),
        (TWO, "dmd2"),
        (TWO, "consistency"),
        (TWO, "rcm"),
        (Kind("wan"), "kd"),
    ],
    ids=str,
)
def test_every_method_trains_every_kind_on_one_base_as_on_three(tmp_path, tiny_family, kind, method):
    tiny = tiny_family(kind)
    runs = []
    for share in (False, True):
        out = tmp_path / str(share)
        runs.append(run_of(kind, tiny.base, tiny.data, out / "run", method, share=share))
        trained(out, runs[-1])
    assert_equal(*runs)


@pytest.mark.parametrize(("optimizer", "rounds", "options"), [("adamw", 1, ADVERSARIAL), ("sgd", 2, {})])
def test_twenty_steps_resumed_twice_are_twenty_steps_of_three_networks(
    tmp_path, tiny_family, monkeypatch, optimizer, rounds, options
):
    if optimizer == "sgd":
        monkeypatch.setattr(
            "fastvideo_dmd2.method.build_optimizer",
            lambda handle, *_, **__: torch.optim.SGD(handle.trainable_parameters(), **SGD),
        )
    kind = Kind("wan")
    tiny = tiny_family(kind)
    runs = []
    for share in (False, True):
        out = tmp_path / str(share)
        run = run_of(kind, tiny.base, tiny.data, out / "run", "dmd2", share=share, **options)
        run["training"] |= {"gradient_accumulation_steps": rounds}
        for steps in (7, 12, 20) if share else (20,):
            run["training"]["max_train_steps"] = steps
            trained(out, run)
            run["training"]["resume_from_checkpoint"] = "latest"
        runs.append(run)
    assert_equal(*runs)
