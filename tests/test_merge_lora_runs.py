"""Runs on LoRA files that are merged into a role's weights: what they store, go on with and refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.cli.main import main
from fastvideo_core.errors import ConfigError
from fastvideo_testing.runs import build_run, toy_family
from tests.conftest import write_run
from tests.merged_lora import HIGH, LORA, LOW, SCALE, file, fused, run_of

__all__ = ["file"]


def refused(run: dict[str, Any], folder: Path, capsys: Any, *arguments: str) -> str:
    assert main([*arguments, str(write_run(folder / "run.yaml", run))]) == 2
    return re.sub(r"\s+", " ", capsys.readouterr().err)


@pytest.fixture
def expected(tiny_wan, file) -> dict[str, Tensor]:
    pipeline = DiffusionPipeline.from_pretrained(tiny_wan, vae=None, text_encoder=None, tokenizer=None)
    return fused(pipeline, HIGH, (file, SCALE))


@pytest.mark.slow
def test_a_run_of_adapters_on_it_exports_samples_and_goes_on_with_it_merged_once(
    tiny_wan, latent_data, file, expected, tmp_path, capsys, monkeypatch
):
    """The adapters alone are in its checkpoints: what they lie on is made again of the pipeline and the file."""
    monkeypatch.chdir(file.parent)
    files = [{"path": file.name, "scale": SCALE}]
    run = run_of(tiny_wan, latent_data, tmp_path / "run", 1, files, lora=LORA)
    assert main([str(write_run(tmp_path / "run.yaml", run))]) == 0
    stored = describe(tmp_path / "run").config["roles"]["student"]["merge_lora"]
    assert [(one["path"], one["scale"], len(one["fingerprint"])) for one in stored] == [(str(file), SCALE, 16)]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    assert main(["export", "run", "model"]) == 0
    assert f"+ 0.7 x {file}" in capsys.readouterr().out
    exported = DiffusionPipeline.from_pretrained("model", vae=None, text_encoder=None, tokenizer=None).transformer
    (trained,) = read_role_weights("run", "student", ema=False).values()
    for name, value in exported.state_dict().items():
        layer = name.removesuffix(".weight")
        if (down := trained.get(f"{layer}.lora_A.default.weight")) is not None:
            value = value - trained[f"{layer}.lora_B.default.weight"] @ down
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6, msg=name)
    assert main(["export", "run", "adapters", "--lora", "separate"]) == 0
    assert "they fit nothing else" in capsys.readouterr().out
    size = ["--height", "32", "--width", "32", "--num-frames", "5", "--steps", "1"]
    assert main(["sample", "run", "--prompt", "a cat", *size]) == 0

    # from its checkpoint to a second step, and two steps at once
    run["roles"]["student"]["merge_lora"] = [{"path": str(file), "scale": SCALE}]
    run["training"]["max_train_steps"] = 2
    assert main([str(write_run(tmp_path / "run.yaml", run)), "--resume", "latest"]) == 0
    run["training"]["output_dir"] = "straight"
    assert main([str(write_run(tmp_path / "run.yaml", run))]) == 0
    one, other = (read_role_weights(out, "student", ema=False)[HIGH] for out in ("run", "straight"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []

    # other files than it began with
    capsys.readouterr()
    run["training"] |= {"output_dir": "run", "max_train_steps": 3}
    for merged in ([{"path": str(file), "scale": 1.0}], None):
        run["roles"]["student"]["merge_lora"] = merged
        text = refused(run, tmp_path, capsys, "--resume", "latest")
        assert f"the run began with 0.7 x {file}" in text
        assert "roles.student.merge_lora" in text
    # its weights hold the file already
    run["roles"]["student"] |= {"path": "straight", "merge_lora": [{"path": str(file)}]}
    run["training"]["output_dir"] = "next"
    assert f"hold {file} already" in refused(run, tmp_path, capsys, "check")


def test_all_weights_trained_on_it_are_in_the_checkpoint(tiny_wan, latent_data, file, expected, tmp_path, capsys):
    run = run_of(tiny_wan, latent_data, tmp_path / "run", 1, [{"path": str(file), "scale": SCALE}], learning_rate=0.0)
    assert main([str(write_run(tmp_path / "run.yaml", run))]) == 0
    (state,) = read_role_weights(tmp_path / "run", "student", ema=False).values()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6, msg=name)
    file.rename(file.with_suffix(".aside"))
    try:
        assert main(["export", str(tmp_path / "run"), str(tmp_path / "model")]) == 0  # needs the file no more
    finally:
        file.with_suffix(".aside").rename(file)


def test_a_file_that_is_gone_or_another_one_is_told_where_adapters_lie_on_it(
    tiny_wan, latent_data, file, tmp_path, capsys
):
    own = tmp_path / "own.safetensors"
    own.write_bytes(file.read_bytes())
    run = run_of(tiny_wan, latent_data, tmp_path / "run", 1, [{"path": str(own)}], lora=LORA)
    assert main([str(write_run(tmp_path / "run.yaml", run))]) == 0
    save_file({name: 2 * value for name, value in load_file(own).items()}, own)
    export = ["export", str(tmp_path / "run"), str(tmp_path / "model")]
    assert main(export) == 2
    assert "is not the LoRA that the run began with" in capsys.readouterr().err
    own.unlink()
    assert main(export) == 2
    assert f"there is no file {own}" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda one: {**one, "x.lora_A.weight": torch.ones(1, 1)},
            "1 layers are no linear layers of the network: x",
        ),
        (lambda one: {f"{key}x": value for key, value in one.items()}, "keys are of no LoRA that diffusers reads"),
        (
            lambda one: {key.replace("attn1", "attn9"): v for key, v in one.items()},
            "layers are no linear layers of the network",
        ),
        (lambda one: {key: v[:, :1] for key, v in one.items()}, "layers have other shapes"),
        (lambda one: {key: v for key, v in one.items() if "lora_A" not in key}, "layers have other shapes"),
        (lambda one: {f"{key}.dora_scale": v for key, v in one.items()}, "is a DoRA"),
        (lambda one: {f"lora_unet_{key}": v for key, v in one.items()}, "is no valid LoRA file"),
    ],
)
def test_a_file_that_does_not_fit_is_told_before_weights_are_loaded(
    tiny_wan, latent_data, file, tmp_path, capsys, change, message
):
    wrong = tmp_path / "wrong.safetensors"
    save_file({key: value.contiguous() for key, value in change(load_file(file)).items()}, wrong)
    text = refused(
        run_of(tiny_wan, latent_data, tmp_path / "run", 1, [{"path": str(wrong)}]), tmp_path, capsys, "check"
    )
    assert "roles.student.merge_lora" in text
    assert str(wrong) in text
    assert re.search(message, text)


def test_a_path_that_leads_to_no_file_and_a_wrong_module_are_told(tiny_wan, latent_data, file, tmp_path, capsys):
    for folder, names in (("none", ()), ("two", ("a", "b"))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.safetensors").write_bytes(file.read_bytes())
    (tmp_path / "text.safetensors").write_text("no weights")
    for path, message in (
        ("gone.safetensors", "there is no file"),
        ("none", "holds no safetensors file"),
        ("two", "holds a.safetensors, b.safetensors"),
        ("text.safetensors", "is no valid LoRA file"),
    ):
        files = [{"path": str(tmp_path / path)}]
        assert message in refused(run_of(tiny_wan, latent_data, tmp_path / "run", 1, files), tmp_path, capsys, "check")
    files = [{"path": str(file), "module": LOW}]
    text = refused(run_of(tiny_wan, latent_data, tmp_path / "run", 1, files), tmp_path, capsys, "check")
    assert "no network 'transformer_2'" in text
    run = run_of(tiny_wan, latent_data, tmp_path / "run", 1, [{"path": "~/x", "scale": "much"}])
    assert "roles.student.merge_lora[0].scale" in refused(run, tmp_path, capsys, "check")


def test_a_family_that_merges_none_says_so(tmp_path):
    role = {"path": "org/base", "trainable": True, "merge_lora": [{"path": "x.safetensors"}]}
    training = {"output_dir": str(tmp_path / "out"), "max_train_steps": 1}
    run = {"recipe": {"family": "toy", "method": "finetune"}, "roles": {"student": role}, "training": training}
    with toy_family(), pytest.raises(ConfigError, match=r"roles.student.merge_lora: .*merges no LoRA files"):
        build_run(tmp_path, run)
