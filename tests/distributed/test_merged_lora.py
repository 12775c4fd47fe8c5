"""LoRA files that are merged into the weights of sharded networks, and those that adapters start from."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline

from fastvideo_testing.runs import build_run
from tests.distributed.ranks import run_workers
from tests.distributed.workers import weights
from tests.lora_files import pairs, write_diffusers
from tests.merged_lora import LORA, SCALE, file, run_of

__all__ = ["file"]


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_begin_with_the_weights_of_one(tiny_wan, latent_data, file, tmp_path):
    """In bfloat16 too, where a file is added to the stored weights before they are rounded; nothing is read twice.

    The student's adapters start from a file as well.
    """
    network = DiffusionPipeline.from_pretrained(tiny_wan, vae=None, text_encoder=None, tokenizer=None).transformer
    own = pairs(network, ["to_v"], rank=2)
    lora = {**LORA, "init": str(write_diffusers(tmp_path / "init.safetensors", own, alpha=2))}
    run = run_of(tiny_wan, latent_data, tmp_path / "run", 1, [{"path": str(file), "scale": SCALE}], lora=lora)
    student = run["roles"]["student"]
    teacher, critic = ({**student, "trainable": trains, "lora": None} for trains in (False, True))
    run |= {"roles": {"student": student, "teacher": teacher, "critic": critic}}
    run["recipe"]["method"] = "dmd2"
    run["method_config"] = {"dmd_denoising_steps": [1000, 500], "generator_update_interval": 1}
    run["training"]["mixed_precision"] = "bf16"
    one = weights(build_run(tmp_path, run).method)
    run["training"] |= {"num_gpus": 2, "output_dir": str(tmp_path / "two")}
    run_workers(2, "placed", tmp_path / "seen", run=run)
    two = torch.load(tmp_path / "seen" / "weights.pt")
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    layer = "transformer.blocks.0.attn1.to_q"
    assert one[f"teacher.{layer}.weight"].dtype == torch.bfloat16
    assert torch.equal(one[f"teacher.{layer}.weight"], one[f"critic.{layer}.weight"].bfloat16())
    assert torch.equal(one[f"student.{layer}.weight"], one[f"critic.{layer}.weight"].bfloat16())  # below adapters
    down, up = own["blocks.1.attn1.to_v"]
    adapter = "student.transformer.blocks.1.attn1.to_v.lora_{}.default.weight"
    assert torch.equal(one[adapter.format("A")], down)
    assert torch.equal(one[adapter.format("B")], up)
