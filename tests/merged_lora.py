"""Tiny pipelines with LoRA files merged: as we read them, as diffusers fuses them, and runs on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline
from torch import Tensor

from fastvideo_core.config.run import MergedLora
from fastvideo_core.contracts.family import open_family
from fastvideo_core.contracts.roles import WeightSource
from fastvideo_core.registry import PluginRegistry
from fastvideo_diffusers.loading import stored_weights
from tests.families import Kind
from tests.lora_files import pairs, write_diffusers

HIGH, LOW = "transformer", "transformer_2"
SCALE = 0.7
LORA = {"rank": 2, "targets": ["to_v"]}


@dataclass(frozen=True)
class Base:
    """A tiny pipeline, and its networks alone as diffusers loads them."""

    kind: Kind
    path: Path

    def pipeline(self) -> Any:
        others = ("vae", "text_encoder", "tokenizer", "audio_vae", "vocoder", "connectors")
        index = DiffusionPipeline.load_config(self.path)
        return DiffusionPipeline.from_pretrained(self.path, **{name: None for name in others if name in index})

    def source(self, *files: MergedLora) -> tuple[WeightSource, list[str | None]]:
        """The pipeline's weights with files merged, and the files' fingerprints."""
        family = open_family(self.kind.family, PluginRegistry())
        weights: WeightSource = stored_weights(str(self.path), *self.networks)
        found = []
        for file in files:
            weights, kept = family.merge_lora(str(self.path), weights, file, where="merge_lora")
            found.append(kept.fingerprint)
        return weights, found

    @property
    def networks(self) -> list[str]:
        return [name for name in (HIGH, LOW) if (self.path / name).is_dir()]

    def merged(self, network: str, *files: MergedLora) -> dict[str, Tensor]:
        weights, _ = self.source(*files)
        return {name: weights.read(network, name) for name in weights.tensor_names(network)}


def of(file: Path, **options: Any) -> MergedLora:
    return MergedLora(path=str(file), **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Callable[[Kind], Base]:
    made: dict[str, Base] = {}

    def make(kind: Kind) -> Base:
        if str(kind) not in made:
            path = tmp_path_factory.mktemp(str(kind)) / "base"
            open_family(kind.family, PluginRegistry(), "tiny").tiny(path, seed=0, **kind.options)
            made[str(kind)] = Base(kind, path)
        return made[str(kind)]

    return make


def fused(pipeline: Any, network: str, *files: tuple[Path, float]) -> dict[str, Tensor]:
    """What diffusers makes of files one after the other."""
    into = {"load_into_transformer_2": True} if network == LOW else {}
    for file, scale in files:
        pipeline.load_lora_weights(file.parent, weight_name=file.name, **into)
        pipeline.fuse_lora(components=[network], lora_scale=scale)
        pipeline.unload_lora_weights()
    state: dict[str, Tensor] = getattr(pipeline, network).state_dict()
    return {name.replace(".base_layer.", "."): value for name, value in state.items()}


def run_of(tiny: Path, data: Path, out: Path, steps: int, files: list[dict[str, Any]], **role: Any) -> dict[str, Any]:
    student = {"path": str(tiny), "trainable": True, "merge_lora": files, **role}
    training = {
        "seed": 1,
        "data_path": str(data),
        "output_dir": str(out),
        "max_train_steps": steps,
        "learning_rate": 0.03,
    }
    recipe = {"family": "wan", "method": "finetune"}
    return {"recipe": recipe, "roles": {"student": student}, "training": training}


@pytest.fixture(scope="module")
def file(tiny_wan, tmp_path_factory) -> Path:
    network = DiffusionPipeline.from_pretrained(tiny_wan, vae=None, text_encoder=None, tokenizer=None).transformer
    path = tmp_path_factory.mktemp("file") / "lora.safetensors"
    return write_diffusers(path, pairs(network, ["to_q", "net.2"], rank=2), alpha=3)
