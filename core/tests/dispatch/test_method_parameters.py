"""A method trains parameters of roles alone: what else it would train is named before step 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ContractError
from fastvideo_core.registry import register_method
from fastvideo_testing import build_run, toy_world
from fastvideo_testing.toy_regression import ROLES, ToyMethod, ToyMethodConfig


class LearnedVariance(ToyMethod):
    """Has a parameter of its own in an optimizer, and a frozen network."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.log_variance = nn.Parameter(torch.zeros(()))
        self.measure = nn.Linear(2, 2).requires_grad_(False)
        self.student.optimizers["variance"] = torch.optim.SGD([self.log_variance], lr=0.1)


class HiddenVariance(ToyMethod):
    """Its optimizer has a tensor that no module knows."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.student.optimizers["variance"] = torch.optim.SGD([torch.zeros(3, requires_grad=True)], lr=0.1)


class VarianceAsRole(ToyMethod):
    """The same parameter as a role's, and a frozen network of the method's own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.measure = nn.Linear(2, 2).requires_grad_(False)
        handle = RoleHandle("variance", {"net": nn.Linear(1, 1)}, trainable=True)
        self.bundle.roles["variance"] = handle
        handle.optimizers["sgd"] = torch.optim.SGD(handle.trainable_parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toy_world():
        for name, method in {"own": LearnedVariance, "hidden": HiddenVariance, "role": VarianceAsRole}.items():
            register_method(name, config=ToyMethodConfig, roles=ROLES)(method)
        yield


def run_of(folder: Path, method: str) -> dict[str, Any]:
    return {
        "recipe": {"family": "toy", "method": method},
        "roles": {
            "student": {"path": "toy/student", "trainable": True},
            "teacher": {"path": "toy/teacher", "trainable": False},
        },
        "training": {"output_dir": str(folder / "out"), "max_train_steps": 1, "learning_rate": 1e-3},
    }


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("own", "LearnedVariance: it trains its own parameter 'log_variance', which no role has"),
        (
            "hidden",
            r"HiddenVariance: it trains parameters of shape \[3\] in the optimizer 'variance' of role 'student'",
        ),
    ],
)
def test_what_a_method_would_train_beside_its_roles_is_an_error_that_says_how(
    tmp_path: Path, method: str, message: str
) -> None:
    with pytest.raises(ContractError, match=message) as raised:
        build_run(tmp_path, run_of(tmp_path, method))
    assert "make it a module of a trainable role of its own" in str(raised.value)
    assert "measure" not in str(raised.value)


def test_a_role_that_the_method_makes_and_frozen_networks_are_allowed(tmp_path: Path) -> None:
    method = build_run(tmp_path, run_of(tmp_path, "role")).method
    assert sorted(handle.name for handle in method.bundle if handle.trainable) == ["student", "variance"]
