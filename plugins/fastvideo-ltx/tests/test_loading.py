"""Which folders are accepted, and in which dtype their weights arrive."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from safetensors.torch import load_file, save_file

from fastvideo_core.errors import ConfigError
from fastvideo_ltx.family import LtxFamily
from fastvideo_ltx.generations import open_folder

from .outlines import outline_role

CPU = torch.device("cpu")


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def _edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _load(path: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    generation = open_folder(path, where="path").traits
    return generation.load_transformer(path, dtype=dtype, device=CPU, where="path")


def _refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        open_folder(str(path), where="roles.student.path")
    assert f"roles.student.path ({path})" in str(error.value)
    return str(error.value)


def test_the_facts_of_a_folder(tiny, tiny_condition):
    folder = open_folder(tiny, where="x")
    assert folder.traits.name == "LTX-Video"
    assert (folder.text_dim, folder.text_length, folder.channels) == (32, 128, 128)
    assert (folder.temporal_factor, folder.spatial_factor, folder.num_train_timesteps) == (8, 32, 1000)
    stored = load_file(Path(tiny) / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(torch.tensor(folder.latents_mean), stored["latents_mean"])
    assert torch.equal(torch.tensor(folder.latents_std), stored["latents_std"])
    assert (folder.facts["causal_positions"], folder.facts["text_masked"]) == (False, False)
    later = open_folder(tiny_condition, where="x")
    assert (later.text_length, later.facts["causal_positions"], later.facts["text_masked"]) == (256, True, True)


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
    _edit(copy / "model_index.json", _class_name="WanPipeline")
    text = _refusal(copy)
    assert "is a WanPipeline" in text
    assert "LTXPipeline, LTXImageToVideoPipeline, LTXConditionPipeline" in text


@pytest.mark.parametrize(
    ("component", "changes", "message"),
    [
        ("transformer", {"caption_channels": "wide"}, "caption_channels in transformer/ is 'wide'"),
        ("transformer", {"in_channels": 64}, "its transformer takes 64 channels, its VAE makes 128"),
        ("transformer", {"patch_size": 2}, "its transformer has patch_size 2"),
        ("vae", {"spatio_temporal_scaling": 3}, "spatio_temporal_scaling in vae/ is 3"),
        ("vae", {"patch_size": 2}, "one latent of 8 frames of 16 x 16 pixels"),
    ],
)
def test_configurations_that_no_ltx_video_has(copy, component, changes, message):
    _edit(copy / component / "config.json", **changes)
    assert message in _refusal(copy)


def test_a_vae_without_statistics(copy):
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if name != "latents_std"}, file)
    assert "vae/ holds no tensor latents_std" in _refusal(copy)


def test_a_missing_subfolder(copy):
    shutil.rmtree(copy / "vae")
    assert "has no subfolder vae/" in _refusal(copy)


def test_a_missing_shard(copy, tiny):
    shutil.rmtree(copy / "transformer")
    LTXVideoTransformer3DModel.from_pretrained(tiny, subfolder="transformer").save_pretrained(
        copy / "transformer", max_shard_size="60KB"
    )
    shards = sorted((copy / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    loaded, original = _load(str(copy)), _load(tiny)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))
    shards[0].unlink()
    assert f"transformer/{shards[0].name} is missing" in _refusal(copy)


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
    assert f"path ({copy})" in str(error.value)
    assert message in str(error.value)


def test_damaged_weights(copy):
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"/transformer\): cannot be read: "):
        _load(str(copy))


def test_weights_that_do_not_fit_the_config(copy):
    _edit(copy / "transformer" / "config.json", num_layers=3)
    with pytest.raises(ConfigError, match=r"missing tensors: transformer_blocks\.2\."):
        _load(str(copy))


@pytest.mark.parametrize("other", ["copy", "tiny_condition", "tiny_ltx2"])
def test_roles_must_share_latent_space_conventions_and_generation(run_config, request, copy, other):
    path = str(request.getfixturevalue(other))
    if other == "copy":
        file = copy / "vae" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(file)
        save_file({**tensors, "latents_mean": tensors["latents_mean"] + 1}, file)
    cfg = run_config({"student": True, "teacher": False}, paths={"teacher": path})
    family = LtxFamily()
    family.roles(cfg)
    student, teacher = family.latent_space("student"), family.latent_space("teacher")
    told = {"copy": "latents_mean", "tiny_ltx2": "generation"}.get(other)
    differing = {key for key in {**student, **teacher} if student.get(key) != teacher.get(key)}
    assert told in differing if told else differing


def test_trainable_roles_are_float32_and_frozen_ones_follow_mixed_precision(run_config):
    built = LtxFamily().build(run_config({"student": True, "teacher": False}, mixed_precision="bf16"))
    assert {p.dtype for p in built.bundle["student"].modules["transformer"].parameters()} == {torch.float32}
    assert {p.dtype for p in built.bundle["teacher"].modules["transformer"].parameters()} == {torch.bfloat16}
    built = LtxFamily().build(run_config({"student": True, "teacher": False}))
    assert {p.dtype for p in built.bundle["teacher"].modules["transformer"].parameters()} == {torch.float32}


def test_the_outline_has_the_networks_shapes_and_no_weights(tiny, tmp_path):
    outline = outline_role(tiny)
    loaded = _load(tiny)
    assert set(outline) == {"transformer"}
    shapes = {name: p.shape for name, p in outline["transformer"].named_parameters()}
    assert shapes == {name: p.shape for name, p in loaded.named_parameters()}
    assert {p.device.type for p in outline["transformer"].parameters()} == {"meta"}
    with pytest.raises(ConfigError, match=r"without model_index\.json"):
        outline_role(str(tmp_path))


def test_loading_leaves_the_random_state_alone(tiny):
    before = torch.get_rng_state()
    folder = open_folder(tiny, where="x")
    folder.traits.caption_encoder(folder, device=CPU, dtype=torch.bfloat16).module()
    _load(tiny, torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), before)


def test_roles_of_one_folder_share_no_weights_with_each_other_or_the_file(components, tiny):
    student, teacher = (components.bundle[name].modules["transformer"] for name in ("student", "teacher"))
    before = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(_load(tiny).parameters(), before, strict=True))
