"""A run whose frozen weights take less memory is, to the bit, the run on a pipeline that holds what they stand for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.cli.functions import build_runtime
from fastvideo_core.cli.main import main
from fastvideo_diffusers.quantised import FORMS
from tests.conftest import write_run
from tests.methods import sections

LORA = {"rank": 2, "alpha": 3, "targets": ["to_q", "net.2"]}


def weights_of(folder: Path) -> dict[str, Tensor]:
    return dict(WanTransformer3DModel.from_pretrained(folder, subfolder="transformer").state_dict())


@pytest.fixture(scope="module")
def rounded(tmp_path_factory, tiny_wan) -> Path:
    """The pipeline whose weights are what fp8 makes of the tiny one's."""
    out = Path(shutil.copytree(tiny_wan, tmp_path_factory.mktemp("rounded") / "wan"))
    network, form = WanTransformer3DModel.from_pretrained(out, subfolder="transformer"), FORMS["fp8"]
    for part in network.blocks.modules():
        if isinstance(part, nn.Linear):
            held = form.pack(part.weight.data).values()
            part.weight.data = form.unpack(*held, dtype=torch.float32, shape=part.weight.shape)
    network.save_pretrained(out / "transformer")
    return out


def run_of(wan: Path, data: Path, out: Path, precision: str | None, **training: Any) -> dict[str, Any]:
    """dmd2 whose student and critic train adapters."""
    run = {"recipe": {"family": "wan", "method": "dmd2"}, **sections("dmd2", lambda _: str(wan))}
    for role in run["roles"].values():
        role |= {"base_precision": precision} if precision else {}
        role |= {"lora": LORA} if role["trainable"] else {}
    given = {"seed": 1, "data_path": str(data), "output_dir": str(out), "max_train_steps": 2, "learning_rate": 0.03}
    given |= {"mixed_precision": "bf16", "enable_gradient_checkpointing_type": "full"}
    return {**run, "training": given | training}


def trained(folder: Path, run: dict[str, Any]) -> dict[str, Tensor]:
    """The adapters of its last step, by role and name."""
    folder.mkdir(exist_ok=True)
    build_runtime(write_run(folder / "run.yaml", run)).train()
    out = Path(run["training"]["output_dir"])
    stored = {role: read_role_weights(out, role, ema=False)["transformer"] for role in ("student", "critic")}
    return {f"{role}.{name}": value for role, tensors in stored.items() for name, value in tensors.items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys() != set()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.slow
def test_adapters_on_fp8_learn_what_they_learn_on_the_weights_that_are_held(rounded, tiny_wan, latent_data, tmp_path):
    held = trained(tmp_path / "held", run_of(tiny_wan, latent_data, tmp_path / "held/run", "fp8"))
    plain = trained(tmp_path / "plain", run_of(rounded, latent_data, tmp_path / "plain/run", None))
    assert differing(held, plain) == []
    run = run_of(tiny_wan, latent_data, tmp_path / "shared/run", "fp8")
    for role in ("student", "critic"):
        run["roles"][role]["share"] = "teacher"
        del run["roles"][role]["base_precision"]
    assert differing(held, trained(tmp_path / "shared", run)) == []


def test_a_merged_export_adds_adapters_to_the_pipeline_s_own_weights(tiny_wan, latent_data, tmp_path):
    training = {"data_path": str(latent_data), "output_dir": str(tmp_path / "run"), "max_train_steps": 1}
    student = {"path": str(tiny_wan), "trainable": True, "lora": LORA, "base_precision": "fp8"}
    run = {"recipe": {"family": "wan", "method": "finetune"}, "roles": {"student": student}}
    run |= {"training": {**training, "learning_rate": 0.03, "mixed_precision": "bf16"}}
    assert main([str(write_run(tmp_path / "run.yaml", run))]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "merged")]) == 0
    adapters = read_role_weights(tmp_path / "run", "student", ema=False)["transformer"]
    merged, stored = weights_of(tmp_path / "merged"), weights_of(tiny_wan)
    for name, value in merged.items():
        layer = name.removesuffix(".weight")
        if (down := adapters.get(f"{layer}.lora_A.default.weight")) is not None:
            stored[name] = stored[name] + 1.5 * adapters[f"{layer}.lora_B.default.weight"] @ down
        torch.testing.assert_close(value, stored[name], atol=1e-6, rtol=1e-6, msg=name)
