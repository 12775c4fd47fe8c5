"""A run with roles of two families: each adapter is called with its own roles alone, and all of it is resumed to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fastvideo_core import register_method, register_model
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import OnTrainStart
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.distributed.context import Mesh
from fastvideo_core.errors import ContractError
from fastvideo_testing.runs import build_run, toy_family
from fastvideo_testing.steps import weights
from fastvideo_testing.toy import ToyAdapter, ToyConfig, ToyData, ToyNetwork
from fastvideo_testing.toy_regression import ROLES, ToyMethod, ToyMethodConfig

METHODS: dict[str, dict[str, Any]] = {
    "toy": {"roles": ("student", "teacher"), "method_config": {}},
    "dmd2": {"roles": ("student", "teacher", "critic"), "method_config": {"generator_update_interval": 2}},
}


class DrawingAdapter(ToyAdapter):
    """Notes the roles that it is called with, and adds numbers of its own generator to what their networks say."""

    made: ClassVar[list[DrawingAdapter]] = []

    def __init__(self, family: str) -> None:
        super().__init__(1.0)
        self.family = family
        self.roles: set[str] = set()
        self.started = 0
        self._generator = torch.Generator().manual_seed(len(family))
        DrawingAdapter.made.append(self)

    def on_train_start(self) -> None:
        self.started += 1

    def get_rng_generators(self) -> dict[str, torch.Generator]:
        return {"noise": self._generator}

    def predict_noise(self, handle: RoleHandle, noisy_latents: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.roles.add(f"{handle.name} of {handle.family}")
        out = super().predict_noise(handle, noisy_latents, *args, **kwargs)
        return out + 0.01 * torch.randn(out.shape, generator=self._generator)


def build(family: str, cfg: RunConfig) -> ModelComponents:
    roles = {}
    for name in cfg.family_roles(family):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(name))
            network = ToyNetwork(2, 8, 1)
        roles[name] = RoleHandle(
            name, {"transformer": network}, trainable=cfg.roles[name].trainable, block_classes=(nn.Linear,)
        )
    data = ToyData(cfg.pipeline_config, seed=0, batch_size=2, mesh=Mesh.current(cfg.training))
    return ModelComponents(RoleManager(roles), DrawingAdapter(family), dataloader=data)


@pytest.fixture(autouse=True)
def two_families() -> Iterator[None]:
    """The families `first` and `second` exist."""
    DrawingAdapter.made.clear()
    with toy_family():
        register_model("first", config=ToyConfig)(lambda cfg: build("first", cfg))
        register_model("second", config=ToyConfig)(lambda cfg: build("second", cfg))
        register_method("toy", config=ToyMethodConfig, roles=ROLES)(ToyMethod)
        yield


def run_of(folder: Path, method: str, **training: Any) -> dict[str, Any]:
    roles: dict[str, Any] = {name: {"path": "toy/any", "trainable": True} for name in METHODS[method]["roles"]}
    roles["teacher"] = {"path": "toy/any", "trainable": False, "family": "second"}
    return {
        "recipe": {"family": "first", "method": method},
        "roles": roles,
        "training": {"output_dir": str(folder / "out"), "max_train_steps": 4, "learning_rate": 1e-2, **training},
        "method_config": METHODS[method]["method_config"],
    }


@pytest.mark.parametrize("method", METHODS)
def test_each_adapter_sees_its_own_roles_and_a_resumed_run_ends_with_the_same_bits(tmp_path, method):
    def trained(folder: Path, **training: Any) -> dict[str, dict[str, Tensor]]:
        folder.mkdir(exist_ok=True)
        runtime = build_run(folder, run_of(folder, method, **training))
        assert isinstance(runtime.method.adapter, OnTrainStart)
        runtime.train()
        return {handle.name: weights(handle) for handle in runtime.method.bundle}

    straight = trained(tmp_path / "straight")
    first, second = DrawingAdapter.made
    own = {f"{name} of first" for name in METHODS[method]["roles"] if name != "teacher"}
    assert (first.family, first.roles, first.started) == ("first", own, 1)
    assert (second.family, second.roles, second.started) == ("second", {"teacher of second"}, 1)

    trained(tmp_path / "resumed", max_train_steps=2)
    stored = {}
    for file in (tmp_path / "resumed" / "out" / "checkpoint-000002").rglob("rng/*.safetensors"):
        stored |= safetensors.torch.load_file(file)
    assert {name for name in stored if name.startswith("adapter/")} == {"adapter/first/noise", "adapter/second/noise"}
    resumed = trained(tmp_path / "resumed", resume_from_checkpoint="latest")
    for role, tensors in straight.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, resumed[role][name]), f"{role}.{name}"


class WithoutGuidance(DrawingAdapter):
    predict_x0_guided = None  # type: ignore[assignment]


def test_a_primitive_that_the_teacher_s_family_lacks_is_told_before_the_first_step(tmp_path):
    register_model("third", config=ToyConfig)(
        lambda cfg: ModelComponents(build("third", cfg).bundle, WithoutGuidance("third"))
    )
    run = run_of(tmp_path, "toy")
    run["roles"]["teacher"]["family"] = "third"
    with pytest.raises(ContractError, match="family 'third', WithoutGuidance"):
        build_run(tmp_path, run)


class WithHelper(ToyMethod):
    """Calls a role that it makes, of which it says no family."""

    @classmethod
    def extra_roles(cls, cfg: RunConfig, bundle: RoleManager, adapter: Any) -> list[RoleHandle]:
        return [RoleHandle("helper", {"transformer": ToyNetwork(2, 8, 1)})]

    def single_train_step(self, batch: Any, iteration: int, **options: Any) -> Any:
        prepared = self.prepare_batch(batch)
        t = torch.full((prepared.batch_size,), 500.0)
        self.adapter.predict_noise(self.bundle["helper"], prepared.latents, t, prepared, conditional=True)
        return super().single_train_step(batch, iteration, **options)


def test_a_role_that_a_method_makes_is_of_the_recipe_s_family_unless_it_says_another(tmp_path):
    register_method("helped", config=ToyMethodConfig, roles=ROLES)(WithHelper)
    run = run_of(tmp_path, "toy")
    run["recipe"]["method"] = "helped"
    build_run(tmp_path, run).train()
    first, second = DrawingAdapter.made
    assert "helper of first" in first.roles
    assert second.roles == {"teacher of second"}
