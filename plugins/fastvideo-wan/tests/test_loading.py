"""Which folders are accepted, and in which dtype their weights arrive."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel

from fastvideo_core.errors import ConfigError
from fastvideo_diffusers.scheduler_shift import shifted_scheduler
from fastvideo_wan.config import WanConfig
from fastvideo_wan.family import WanFamily
from fastvideo_wan.folder import open_folder
from fastvideo_wan.loading import load_transformer, load_vae
from fastvideo_wan.schedule import resolve_flow_shift
from fastvideo_wan.text import TextEncoder
from fastvideo_wan.tiny import write_tiny_pipeline

from .outlines import outline_role

CPU = torch.device("cpu")
ISLANDS = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def _edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        open_folder(str(path), where="roles.student.path")
    assert f"roles.student.path ({path})" in str(error.value)
    return str(error.value)


def test_a_folder_without_model_index(tmp_path):
    (tmp_path / "x").mkdir()
    assert "without model_index.json" in _refusal(tmp_path / "x")


def test_a_path_that_cannot_be_a_hub_id_is_not_looked_up(tmp_path):
    assert "there is no such folder" in _refusal(tmp_path / "nothing")


def test_a_hub_id_that_cannot_be_read(monkeypatch):
    def offline(path, subfolder=None):
        raise OSError("We couldn't connect to the hub\nsecond line")

    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("diffusers.DiffusionPipeline.load_config", offline)
    text = _refusal(Path("org/name"))
    assert "(it is no folder here, so it was looked up on the hub): We couldn't connect to the hub" in text
    assert "second line" not in text


def test_another_pipeline(copy):
    _edit(copy / "model_index.json", _class_name="LTXPipeline")
    assert "is a LTXPipeline" in _refusal(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "is None, and there is a transformer_2"),
        ({"boundary_ratio": 0.875}, "is 0.875, and there is no transformer_2"),
        ({"boundary_ratio": 875.0, "transformer_2": ["diffusers", "WanTransformer3DModel"]}, "between 0 and 1"),
        (
            {
                "boundary_ratio": 0.9,
                "transformer_2": ["diffusers", "WanTransformer3DModel"],
                "transformer": [None, None],
            },
            "a transformer_2 and no transformer",
        ),
        (
            {
                "boundary_ratio": 0.9,
                "transformer_2": ["diffusers", "WanTransformer3DModel"],
                "expand_timesteps": True,
            },
            "has two networks, and a noise level for every token",
        ),
    ],
)
def test_wan_2_2(copy, change, message):
    _edit(copy / "model_index.json", **change)
    text = _refusal(copy)
    assert message in text
    assert "Wan 2.1 text-to-video" in text or "download or copy" in text


def test_an_absent_second_transformer_is_fine(copy):
    _edit(copy / "model_index.json", transformer_2=[None, None], boundary_ratio=None, expand_timesteps=False)
    assert open_folder(str(copy), where="x").text_dim == 32


def test_image_to_video(copy):
    _edit(copy / "transformer" / "config.json", in_channels=36)
    assert "takes 36 channels" in _refusal(copy)


def test_a_missing_subfolder(copy):
    shutil.rmtree(copy / "vae")
    assert "has no subfolder vae/" in _refusal(copy)


def test_a_missing_shard(copy, tiny):
    shutil.rmtree(copy / "transformer")
    WanTransformer3DModel.from_pretrained(tiny, subfolder="transformer").save_pretrained(
        copy / "transformer", max_shard_size="40KB"
    )
    shards = sorted((copy / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    loaded = load_transformer(str(copy), dtype=torch.float32, device=CPU)
    original = load_transformer(tiny, dtype=torch.float32, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))
    shards[0].unlink()
    assert f"transformer/{shards[0].name} is missing" in _refusal(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "transformer/model.safetensors.index.json: has no weight_map"),
        ('{"weight_map": [1]}', "has no weight_map"),
        ("{oops", "transformer/model.safetensors.index.json: is no valid JSON: Expecting property name"),
    ],
)
def test_a_damaged_index_of_shards(copy, content, message):
    (copy / "transformer" / "model.safetensors.index.json").write_text(content)
    assert message in _refusal(copy)


@pytest.mark.parametrize(
    ("component", "changes", "message"),
    [
        ("transformer", {"patch_size": 2}, "patch_size in transformer/ is 2\n    allowed: 3 whole numbers"),
        ("transformer", {"patch_size": [1, 2]}, "patch_size in transformer/ is [1, 2]"),
        ("transformer", {"text_dim": "wide"}, "text_dim in transformer/ is 'wide'"),
        ("vae", {"latents_mean": [0.0]}, "latents_mean in vae/ is [0.0]\n    allowed: 16 numbers"),
    ],
)
def test_values_that_no_pipeline_has(copy, component, changes, message):
    _edit(copy / component / "config.json", **changes)
    assert message in _refusal(copy)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("tokenizer/tokenizer.json", "tokenizer/tokenizer.json: is no valid JSON"),
        ("text_encoder/config.json", "text_encoder/config.json: is no valid JSON"),
        ("transformer/diffusion_pytorch_model.safetensors", "model.safetensors: is no valid safetensors file"),
        ("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors: is no valid"),
    ],
)
def test_an_outline_finds_damaged_files_without_reading_weights(copy, file, message):
    (copy / file).write_bytes((copy / file).read_bytes()[:-20])
    with pytest.raises(ConfigError) as error:
        outline_role(str(copy))
    assert f"path ({copy}): " in str(error.value)
    assert message in str(error.value)


def test_damaged_weights(copy):
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"/transformer\): cannot be read: "):
        load_transformer(str(copy), dtype=torch.float32, device=CPU)


def test_weights_that_do_not_fit_the_config(copy):
    _edit(copy / "transformer" / "config.json", num_layers=3)
    with pytest.raises(ConfigError, match=r"missing tensors: blocks\.2\."):
        load_transformer(str(copy), dtype=torch.float32, device=CPU)


def test_roles_must_share_the_latent_space(run_config, copy):
    config = json.loads((copy / "vae" / "config.json").read_text())
    _edit(copy / "vae" / "config.json", latents_mean=[v + 1 for v in config["latents_mean"]])
    cfg = run_config({"student": True, "teacher": False}, paths={"teacher": str(copy)})
    family = WanFamily()
    family.roles(cfg)
    one, other = family.latent_space("student"), family.latent_space("teacher")
    assert {key for key in one if one[key] != other.get(key)} == {"latents_mean"}


def test_bf16_keeps_the_sensitive_modules_in_float32(tiny):
    transformer = load_transformer(tiny, dtype=torch.bfloat16, device=CPU)
    for name, parameter in transformer.named_parameters():
        island = any(part in ISLANDS for part in name.split("."))
        assert parameter.dtype == (torch.float32 if island else torch.bfloat16), name
    assert transformer.rope.freqs_cos.dtype == torch.float32
    assert transformer.dtype == torch.bfloat16


def test_trainable_roles_are_float32_and_frozen_ones_follow_mixed_precision(run_config):
    built = WanFamily().build(run_config({"student": True, "teacher": False}, mixed_precision="bf16"))
    assert {p.dtype for p in built.bundle["student"].modules["transformer"].parameters()} == {torch.float32}
    assert built.bundle["teacher"].modules["transformer"].dtype == torch.bfloat16
    built = WanFamily().build(run_config({"student": True, "teacher": False}))
    assert {p.dtype for p in built.bundle["teacher"].modules["transformer"].parameters()} == {torch.float32}


def test_the_outline_has_the_networks_shapes_and_no_weights(tiny, tmp_path):
    outline = outline_role(tiny)
    loaded = load_transformer(tiny, dtype=torch.float32, device=CPU)
    assert set(outline) == {"transformer"}
    shapes = {name: p.shape for name, p in outline["transformer"].named_parameters()}
    assert shapes == {name: p.shape for name, p in loaded.named_parameters()}
    assert {p.device.type for p in outline["transformer"].parameters()} == {"meta"}
    with pytest.raises(ConfigError, match=r"without model_index\.json"):
        outline_role(str(tmp_path))


def test_vae_is_float32_and_loading_leaves_the_random_state_alone(tiny):
    before = torch.get_rng_state()
    assert load_vae(tiny, device=CPU).dtype == torch.float32
    TextEncoder(tiny, dtype=torch.bfloat16, device=CPU).module()
    load_transformer(tiny, dtype=torch.bfloat16, device=CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_roles_of_one_folder_share_no_weights_with_each_other_or_the_file(components, tiny):
    student, teacher = (components.bundle[name].modules["transformer"] for name in ("student", "teacher"))
    before = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    again = load_transformer(tiny, dtype=torch.float32, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), before, strict=True))


@pytest.mark.parametrize(("scheduler", "key"), [("euler", "shift"), ("unipc", "flow_shift")])
def test_flow_shift_comes_from_the_scheduler_unless_configured(tmp_path, scheduler, key):
    write_tiny_pipeline(tmp_path / "w", scheduler=scheduler, flow_shift=7.0)
    folder = open_folder(str(tmp_path / "w"), where="x")
    assert resolve_flow_shift(folder, WanConfig()) == 7.0
    assert resolve_flow_shift(folder, WanConfig(flow_shift=2.5)) == 2.5
    assert shifted_scheduler(folder, 2.5).config[key] == 2.5


def test_a_scheduler_without_fixed_shift_asks_for_one(copy):
    _edit(copy / "scheduler" / "scheduler_config.json", use_dynamic_shifting=True)
    with pytest.raises(ConfigError, match=r"set pipeline_config\.flow_shift"):
        resolve_flow_shift(open_folder(str(copy), where="x"), WanConfig())
