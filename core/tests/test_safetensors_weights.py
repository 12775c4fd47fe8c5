"""Which of a folder's safetensors files count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fastvideo_core.safetensors_weights import SafetensorsWeights


def store(folder: Path, name: str, dtype: torch.dtype, *, indexed: bool) -> None:
    file = f"{name}-00001-of-00001.safetensors" if indexed else f"{name}.safetensors"
    save_file({"weight": torch.full((2,), 1 / 3, dtype=dtype)}, folder / file)
    if indexed:
        (folder / f"{name}.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": file}}))


def read(folder: Path) -> torch.dtype:
    return SafetensorsWeights({"net": folder}, where="here").read("net", "weight").dtype


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("variant_indexed", [True, False])
@pytest.mark.parametrize("variant", ["fp16", "z"])
def test_a_variant_beside_the_weights_is_not_read(tmp_path, variant, variant_indexed, indexed):
    store(tmp_path, "model", torch.float32, indexed=indexed)
    store(tmp_path, f"model.{variant}", torch.float16, indexed=variant_indexed)
    assert read(tmp_path) is torch.float32


@pytest.mark.parametrize("indexed", [True, False])
def test_a_variant_alone_is_read(tmp_path, indexed):
    store(tmp_path, "model.fp16", torch.float16, indexed=indexed)
    assert read(tmp_path) is torch.float16
