"""Tiny pipelines of both generations, and run configurations over them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.config.base import MethodConfig
from fastvideo_core.config.run import RecipeConfig, RoleConfig, RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import LtxFamily
from fastvideo_ltx.tiny import write_tiny_pipeline

# Makes `ltx2_pipeline` importable for the tests beside it (pytest's importlib mode leaves sys.path alone).
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_ltx2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny LTX-2; read only."""
    path = tmp_path_factory.mktemp("tiny") / "ltx2"
    write_tiny_pipeline(path, generation=2)
    return str(path)


@pytest.fixture(scope="session")
def tiny_ltx25(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny LTX-2.5; read only."""
    path = tmp_path_factory.mktemp("tiny") / "ltx25"
    write_tiny_pipeline(path, generation=2, variant="ltx25")
    return str(path)


MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny LTX-Video; read only."""
    path = tmp_path_factory.mktemp("tiny") / "ltx"
    write_tiny_pipeline(path, seed=0)
    return str(path)


@pytest.fixture(scope="session")
def tiny_condition(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same weights as LTX-Video 0.9.5 and later are published: LTXConditionPipeline, no dynamic shift."""
    path = tmp_path_factory.mktemp("tiny") / "condition"
    shutil.copytree(tiny, path)
    edit_json(path / "model_index.json", _class_name="LTXConditionPipeline")
    edit_json(path / "scheduler" / "scheduler_config.json", use_dynamic_shifting=False, shift_terminal=None)
    return str(path)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


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
            recipe=RecipeConfig(family="ltx", method="any"),
            roles={
                name: RoleConfig(path=(paths or {}).get(name, tiny), trainable=trainable)
                for name, trainable in given.items()
            },
            training=TrainingArgs(output_dir=str(tmp_path), max_train_steps=1, **training),
            pipeline_config=LtxConfig(**{"shift_tokens": 1024, **(pipeline or {})}),
            method_config=MethodConfig.model_validate({"attn_kind": attn_kind}),
            callbacks={},
            source="run.yaml",
        )

    return make


@pytest.fixture
def components(run_config: MakeConfig) -> ModelComponents:
    """A frozen teacher and a trainable student, negative prompt encoded."""
    built = LtxFamily().build(run_config({"student": True, "teacher": False}))
    built.adapter.on_train_start()
    return built


@pytest.fixture
def raw_batch() -> dict[str, Any]:
    """Two samples as core's loader gives them."""
    generator = torch.Generator().manual_seed(5)
    return {
        "vae_latent": torch.randn(2, 128, 3, 2, 3, generator=generator),
        "text_embedding": torch.randn(2, 9, 32, generator=generator),
        "text_embedding_length": torch.tensor([9, 4]),
        "info": [{"id": "one", "fps": 24.0}, {"id": "two", "fps": 30.0}],
        "vae_latent_normalised": False,
    }
