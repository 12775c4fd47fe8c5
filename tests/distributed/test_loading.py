"""Ranks read their own shards: host memory stays near a shard's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from tests.distributed.ranks import run_workers

MIB = 2**20
pytestmark = pytest.mark.distributed


def write_network(folder: Path, *, layers: int, heads: int) -> dict[str, float]:
    """A transformer whose every tensor holds one number, another for each; the numbers by name."""
    config: dict[str, Any] = {"num_layers": layers, "num_attention_heads": heads, "attention_head_dim": 64}
    config |= {"ffn_dim": 256 * heads, "text_dim": 64, "freq_dim": 64, "rope_max_seq_len": 32}
    with torch.device("meta"):
        outline = WanTransformer3DModel(**config)
    (folder / "transformer").mkdir(parents=True)
    outline.save_config(folder / "transformer")
    numbers = {name: float(number) for number, (name, _) in enumerate(outline.named_parameters())}
    tensors = {name: torch.full(p.shape, numbers[name]) for name, p in outline.named_parameters()}
    save_file(tensors, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    return numbers


@pytest.mark.parametrize(
    ("layers", "heads", "slack"), [(12, 8, 40 * MIB), pytest.param(20, 20, 120 * MIB, marks=pytest.mark.slow)]
)
def test_a_rank_holds_no_more_than_its_shards(tmp_path, layers, heads, slack):
    numbers = write_network(tmp_path, layers=layers, heads=heads)
    size = (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").stat().st_size
    run_workers(2, "memory", tmp_path / "out", path=str(tmp_path))
    for rank in (0, 1):
        seen = torch.load(tmp_path / "out" / f"{rank}.pt")
        assert seen["held"] == pytest.approx(size / 2, rel=0.02)
        assert seen["held"] * 0.9 < seen["peak"] < seen["held"] + slack < size
        assert seen["constants"] == {name: [number, number] for name, number in numbers.items()}
