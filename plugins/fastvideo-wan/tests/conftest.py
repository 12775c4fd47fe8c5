"""A tiny pipeline, and run configurations over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.config.base import MethodConfig
from fastvideo_core.config.run import RecipeConfig, RoleConfig, RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_wan.config import WanConfig
from fastvideo_wan.family import WanFamily
from fastvideo_wan.tiny import write_tiny_pipeline

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Wan; read only."""
    path = tmp_path_factory.mktemp("tiny") / "wan"
    write_tiny_pipeline(path, seed=0)
    return str(path)


@pytest.fixture(scope="session")
def tiny_a14b(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Wan 2.2 A14B, whose networks change at 875; read only."""
    path = tmp_path_factory.mktemp("tiny") / "a14b"
    write_tiny_pipeline(path, seed=0, variant="a14b")
    return str(path)


@pytest.fixture(scope="session")
def tiny_ti2v(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Wan 2.2 TI2V-5B; read only."""
    path = tmp_path_factory.mktemp("tiny") / "ti2v"
    write_tiny_pipeline(path, seed=0, variant="ti2v")
    return str(path)


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tiny image-to-video pipelines by the name of their variant; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    for variant in ("i2v", "flf2v", "i2v_a14b"):
        write_tiny_pipeline(folder / variant, seed=0, variant=variant)
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture
def run_config(tiny: str, tmp_path: Path) -> MakeConfig:
    """A run over the tiny pipeline: roles by name as {name: trainable}, training and pipeline settings."""

    def make(
        roles: dict[str, bool] | None = None,
        *,
        paths: dict[str, str] | None = None,
        pipeline: dict[str, Any] | None = None,
        attn_kind: str = "dense",
        **training: Any,
    ) -> RunConfig:
        given = roles or {"student": True}
        return RunConfig(
            recipe=RecipeConfig(family="wan", method="any"),
            roles={
                name: RoleConfig(path=(paths or {}).get(name, tiny), trainable=trainable)
                for name, trainable in given.items()
            },
            training=TrainingArgs(output_dir=str(tmp_path), max_train_steps=1, **training),
            pipeline_config=WanConfig(**(pipeline or {})),
            method_config=MethodConfig.model_validate({"attn_kind": attn_kind}),
            callbacks={},
            source="run.yaml",
        )

    return make


@pytest.fixture
def components(run_config: MakeConfig) -> ModelComponents:
    """A frozen teacher and a trainable student, negative prompt encoded."""
    built = WanFamily().build(run_config({"student": True, "teacher": False}))
    built.adapter.on_train_start()
    return built


@pytest.fixture
def raw_batch() -> dict[str, Any]:
    """Two samples as core's loader gives them."""
    generator = torch.Generator().manual_seed(5)
    return {
        "vae_latent": torch.randn(2, 16, 2, 4, 6, generator=generator),
        "text_embedding": torch.randn(2, 9, 32, generator=generator),
        "text_embedding_length": torch.tensor([9, 4]),
        "info": [{"id": "one"}, {"id": "two"}],
        "vae_latent_normalised": False,
    }


@pytest.fixture
def random_adapters():
    """Values of the adapters that a role trains, by network, none of them zero."""

    def adapters(role):
        generator = torch.Generator().manual_seed(2)
        return {
            name: {
                key: 0.3 * torch.randn(value.shape, generator=generator)
                for key, value in module.state_dict().items()
                if ".lora_" in key
            }
            for name, module in role.modules.items()
        }

    return adapters
