"""Wan's variants on two processes: as on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_data.schema import arrow_schema, encode_tensor, key_value_metadata, write_part
from fastvideo_wan.tiny import write_tiny_pipeline
from tests.distributed.test_two_networks import distance, losses, train
from tests.methods import sections

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
METADATA = {"id": "s", "caption": "clip", "media_type": "video", "fps": 16.0, "file_name": "0.mp4", "duration_sec": 0.3}


def run_of(
    folder: Path, variant: str, method: str, *, size: tuple[int, int, int] = (2, 4, 4), **pipeline: Any
) -> dict[str, Any]:
    """A run on one sample of latents of that size, four times: whoever gets which is all the same."""
    write_tiny_pipeline(folder / "wan", variant=variant)
    tensors = {
        "vae_latent": torch.randn(48 if variant == "ti2v" else 16, *size),
        "text_embedding": torch.randn(8, 32),
    }
    if variant == "i2v":
        tensors |= {"first_frame_latent": torch.randn(16, 2, 4, 4), "clip_feature": torch.randn(5, 16)}
    row = {**METADATA, "width": 32, "height": 32, "num_frames": 2}
    for name, tensor in tensors.items():
        row |= encode_tensor(name, tensor)
    (folder / "data").mkdir()
    metadata = key_value_metadata(normalised=False, settings={})
    write_part(folder / "data" / "part.parquet", [row] * 4, arrow_schema(tuple(tensors), tuple(METADATA)), metadata)
    options = {"dmd_denoising_steps": [1000, 750, 500]} if method == "dmd2" else {}
    return {
        "recipe": {"family": "wan", "method": method},
        **sections(method, lambda role: str(folder / "wan"), **options),
        "pipeline_config": {"flow_shift": 8, **pipeline},
        "training": {"data_path": str(folder / "data"), "max_train_steps": 6, "learning_rate": 1e-3},
    }


def one_and_two(folder: Path, method: str, run: dict[str, Any]) -> tuple[Path, Path]:
    """The folders of a run on one process and on two, whose losses and weights are equal."""
    one, two = (train(folder / str(world), world, method, of_wan=run) for world in (1, 2))
    for left, right in zip(losses(one), losses(two), strict=True):
        assert left == pytest.approx(right, abs=1e-5, rel=1e-5)
    assert distance(one, two) < 1e-4  # a tenth of one update: AdamW divides by gradients that are rounding alone
    return one, two


@pytest.mark.parametrize("method", ["finetune", "dmd2"])
def test_two_networks_train_as_on_one(tmp_path, method):
    """Timesteps are on both sides of the boundary, and every role has both networks."""
    one, two = one_and_two(tmp_path, method, run_of(tmp_path, "a14b", method))
    role = "critic" if method == "dmd2" else "student"
    moved = torch.load(one / "moved.pt")
    assert moved == torch.load(two / "moved.pt")
    networks = [[name for name in names if name.startswith(f"{role}.")] for names in moved]
    assert all(len(names) == 1 for names in networks)
    assert {name for names in networks for name in names} == {f"{role}.transformer", f"{role}.transformer_2"}


@pytest.mark.parametrize(("variant", "pipeline"), [("i2v", {}), ("ti2v", {"first_frame_probability": 0.5})])
def test_given_frames_train_as_on_one(tmp_path, variant, pipeline):
    """Of TI2V some samples of a step are given their first frame, so that their tokens have levels of their own."""
    one_and_two(tmp_path, "finetune", run_of(tmp_path, variant, "finetune", **pipeline))


def test_sparse_attention_trains_as_on_one(tmp_path):
    """Two tiles, of which each attends to one; the gates are sharded with their blocks."""
    run = run_of(tmp_path, "t2v", "dmd2", size=(2, 8, 16))
    run["method_config"]["attn_kind"] = "vsa"
    run["training"] |= {"VSA_sparsity": 0.5, "VSA_decay_rate": 0.25, "enable_gradient_checkpointing_type": "full"}
    one, _ = one_and_two(tmp_path, "dmd2", run)
    gates = [value for name, value in torch.load(one / "weights.pt").items() if "to_gate_compress" in name]
    assert gates
    assert all(gate.abs().max() > 0 for gate in gates)
