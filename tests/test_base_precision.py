"""A run whose frozen weights take less memory is, to the bit, the run on a pipeline that holds what they stand for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.cli.functions import build_runtime
from fastvideo_core.cli.main import main
from fastvideo_diffusers.quantised import FORMS
from tests.conftest import write_run
from tests.methods import sections

LORA = {"rank": 2, "alpha": 3, "targets": ["to_q", "net.2"]}


def weights_of(folder: Path) -> dict[str, Tensor]:
    return dict(WanTransformer3DModel.from_pretrained(folder, subfolder="transformer").state_dict())


@pytest.fixture(scope="module", params=["fp8", pytest.param("int8", marks=pytest.mark.slow), pytest.param("nf4", marks=pytest.mark.slow)])
def rounded(request, tmp_path_factory, tiny_wan) -> tuple[str, Path]:
    """A precision, and the pipeline whose weights are what it makes of the tiny one's."""
    if request.param != "fp8":
        pytest.importorskip("bitsandbytes")
    out = Path(shutil.copytree(tiny_wan, tmp_path_factory.mktemp(request.param) / "wan"))
    network, form = WanTransformer3DModel.from_pretrained(out, subfolder="transformer"), FORMS[request.param]
    for name, part in network.blocks.named_modules():
        if isinstance(part, torch.nn.Linear):
            held = form.pack(part.weight.data).values()
            part.weight.data = form.unpack(*held, dtype=torch.float32, shape=part.weight.shape)
    network.save_pretrained(out / "transformer")
    return request.param, out


def run_of(wan: Path, data: Path, out: Path, precision: str | None, **training: Any) -> dict[str, Any]:
    """dmd2 whose student and critic train adapters."""
    run = {"recipe": {"family": "wan", "method": "dmd2"}, **sections("dmd2", lambda _: str(wan))}
    for role in run["roles"].values():
        role |= {"base_precision": precision} if precision else {}
        role |= {"lora": LORA} if role["trainable"] else {}
    given = {"seed": 1, "data_path": str(data), "output_dir": str(out), "max_train_steps": 2, "learning_rate": 0.03}
    return {**run, "training": given | training}


def trained(folder: Path, run: dict[str, Any]) -> dict[str, Tensor]:
    folder.mkdir()
    runtime = build_runtime(write_run(folder / "run.yaml", run))
    runtime.train()
    out = Path(run["training"]["output_dir"])
    roles = ("student", "critic")
    return {f"{role}.{n}": v for role in roles for n, v in read_role_weights(out, role, ema=False)["transformer"].items()}


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_adapters_learn_what_they_learn_on_the_weights_that_are_held(rounded, tiny_wan, latent_data, tmp_path, mixed_precision):
    precision, pipeline = rounded
    options = {"mixed_precision": mixed_precision, "enable_gradient_checkpointing_type": "full"}
    held = trained(tmp_path / "held", run_of(tiny_wan, latent_data, tmp_path / "held/run", precision, **options))
    plain = trained(tmp_path / "plain", run_of(pipeline, latent_data, tmp_path / "plain/run", None, **options))
    assert held.keys() == plain.keys() != set()
    for name, value in plain.items():
        assert (held[name] - value).norm() <= (0 if precision == "fp8" else 1e-4) * value.norm(), name
