"""Adapters in the spellings of other programs: what diffusers makes of the files, and runs and samples that start from them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvideo_core.cli.main import main
from fastvideo_core.config.run import LoraConfig, MergedLora
from fastvideo_core.contracts.family import ModelFamily, open_family
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.video_validator import SamplingValidator
from fastvideo_diffusers.loading import stored_weights
from fastvideo_testing.runs import build_run
from tests.conftest import write_run
from tests.families import Kind
from tests.lora_files import WAN_NAMES, pairs
from tests.methods import sections

HIGH, LOW = "transformer", "transformer_2"
FILES = {HIGH: "pytorch_lora_weights.safetensors", LOW: "pytorch_lora_weights_transformer_2.safetensors"}
WAN, A14B, I2V = Kind("wan"), Kind("wan", {"variant": "a14b"}), Kind("wan", {"variant": "i2v"})
LTX1, LTX2 = Kind("ltx", {"generation": 1}), Kind("ltx", {"generation": 2})
BLOCKS = list(WAN_NAMES)
ALL: list[str] = []
"""In place of ends of names: every linear layer."""


@dataclass(frozen=True)
class Base:
    """A tiny pipeline, and random adapters on its networks as a checkpoint holds them."""

    family: ModelFamily
    path: Path
    networks: dict[str, torch.nn.Module]

    def adapters(self, ends: list[str], rank: int = 3) -> dict[str, dict[str, Tensor]]:
        found = {
            name: pairs(network, ends or linear_layers(network), rank=rank, seed=seed)
            for seed, (name, network) in enumerate(self.networks.items())
        }
        return {
            module: {
                f"{layer}.lora_{part}.default.weight": one
                for layer, pair in layers.items()
                for part, one in zip("AB", pair, strict=True)
            }
            for module, layers in found.items()
        }

    def export(self, out: Path, adapters: Any, format: str, *, rank: int = 3, alpha: float | None = 2) -> list[Path]:
        lora = LoraConfig(rank=rank, alpha=alpha)
        notes = self.family.export_lora(str(self.path), out, adapters, lora=lora, format=format)
        assert len(notes) == len(adapters)
        assert {path.name for path in out.iterdir()} == {FILES[module] for module in adapters}
        return [out / FILES[module] for module in adapters]

    @property
    def pipeline(self) -> Any:
        return getattr(diffusers, DiffusionPipeline.load_config(self.path)["_class_name"])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Callable[[Kind], Base]:
    made: dict[str, Base] = {}

    def make(kind: Kind) -> Base:
        if str(kind) not in made:
            path, family = tmp_path_factory.mktemp("base") / "base", open_family(kind.family, PluginRegistry())
            family.tiny(path, seed=0, **kind.options)
            folder = family.open_folder(str(path), where="base")
            networks = {
                name: family.meta_network(folder, dtype=torch.float32, where="base", name=name)
                for name in folder.networks
            }
            made[str(kind)] = Base(family, path, networks)
        return made[str(kind)]

    return make


def linear_layers(network: torch.nn.Module) -> list[str]:
    return [name for name, part in network.named_modules() if isinstance(part, torch.nn.Linear)]


def products(adapters: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    downs = [name for name in adapters if ".lora_A." in name]
    return {
        name.partition(".lora_")[0]: scale * adapters[name.replace("_A.", "_B.")] @ adapters[name] for name in downs
    }


def as_diffusers_reads(pipeline: Any, file: Path) -> dict[str, Tensor]:
    """The products that diffusers' own converter and the file's metadata give."""
    read, metadata = pipeline.lora_state_dict(str(file.parent), weight_name=file.name, return_lora_metadata=True)
    scale = 1.0 if metadata is None else metadata["transformer.lora_alpha"] / metadata["transformer.r"]
    return products({name.removeprefix("transformer."): value for name, value in read.items()}, scale)


@pytest.mark.parametrize(
    ("kind", "format", "ends", "rank"),
    [
        *((WAN, format, BLOCKS, 3) for format in ("diffusers", "comfyui", "lightx2v", "musubi")),
        (WAN, "comfyui", ALL, 1),
        (WAN, "comfyui", ["to_q", "ffn.net.2"], 3),
        (WAN, "musubi", BLOCKS, 1),
        (A14B, "comfyui", BLOCKS, 3),
        (A14B, "musubi", BLOCKS, 3),
        (I2V, "comfyui", ALL, 3),
        (I2V, "musubi", [*BLOCKS, "add_k_proj", "add_v_proj"], 3),
        (LTX1, "comfyui", ["to_q", "net.2", "proj_out"], 3),
        (LTX2, "comfyui", ALL, 3),
        (LTX2, "lightx2v", ["to_q"], 1),
    ],
)
def test_diffusers_converter_makes_the_adapters_of_a_file_again(base, tmp_path, kind, format, ends, rank):
    """Alpha is 2 and not the rank, so that a scale that is left out, or counted twice, shows."""
    tiny = base(kind)
    adapters = tiny.adapters(ends, rank)
    files = tiny.export(tmp_path / "out", adapters, format, rank=rank)
    for (module, own), file in zip(adapters.items(), files, strict=True):
        expected = products({name.replace(".default.", "."): one for name, one in own.items()}, 2 / rank)
        found = as_diffusers_reads(tiny.pipeline, file)
        assert found.keys() == expected.keys()
        for layer, product in found.items():
            torch.testing.assert_close(product, expected[layer], atol=1e-6, rtol=1e-6, msg=f"{module} {layer}")


def test_the_keys_of_a_file_are_those_that_each_program_knows(base, tmp_path):
    tiny = base(WAN)
    for format, stem in (
        ("comfyui", "diffusion_model.blocks.1.cross_attn.o"),
        ("lightx2v", "diffusion_model.blocks.1.cross_attn.o"),
        ("musubi", "lora_unet_blocks_1_cross_attn_o"),
    ):
        stored = load_file(tiny.export(tmp_path / format, tiny.adapters(BLOCKS), format)[0])
        own = {key.removeprefix(stem): value for key, value in stored.items() if key.startswith(f"{stem}.")}
        assert {key: list(value.shape) for key, value in own.items()} == {
            ".lora_down.weight": [3, 24],
            ".lora_up.weight": [24, 3],
            ".alpha": [],
        }
        assert own[".alpha"] == 2
    outside = load_file(tiny.export(tmp_path / "all", tiny.adapters(["time_proj", "to_q"]), "comfyui")[0])
    assert "diffusion_model.time_projection.1.lora_up.weight" in outside
    assert "diffusion_model.time_projection.1.alpha" not in outside  # diffusers reads none there


@pytest.mark.parametrize(
    ("kind", "format", "ends", "message"),
    [
        (WAN, "musubi", ["to_q", "to_k", "to_v", "to_out.0"], r"4 layers \(blocks.0.ffn.net.0.proj, .*are not trained"),
        (WAN, "musubi", [*BLOCKS, "proj_out"], "proj_out have no name in this format"),
        (I2V, "comfyui", ["to_q", "add_k_proj"], "could not read a file of these layers"),
        (LTX1, "comfyui", ["proj_in", "to_q"], "proj_in have no name in this format"),
        (LTX1, "musubi", ["to_q"], "LTXPipeline has no LoRA files of that format.*diffusers, comfyui"),
        (LTX2, "musubi", ["to_q"], "diffusers, comfyui, lightx2v"),
    ],
)
def test_what_a_format_cannot_hold_is_told_before_anything_is_written(base, tmp_path, kind, format, ends, message):
    tiny = base(kind)
    with pytest.raises(ConfigError, match=rf"(?s){message}"):
        tiny.export(tmp_path / "out", tiny.adapters(ends), format)
    assert not (tmp_path / "out").exists()


def test_a_musubi_file_that_diffusers_cannot_read_is_refused_by_the_layers_that_lack(base, tmp_path):
    tiny = base(WAN)
    (file,) = tiny.export(tmp_path / "out", tiny.adapters(BLOCKS), "musubi")
    save_file({name: one for name, one in load_file(file).items() if "ffn_2" not in name}, file)
    with pytest.raises(
        ConfigError, match=r"is a musubi file without blocks.0.ffn.net.2, blocks.1.ffn.net.2: diffusers"
    ):
        tiny.family.merge_lora(str(tiny.path), stored_weights(str(tiny.path)), MergedLora(path=str(file)), where="x")


@pytest.mark.parametrize("format", ["diffusers", "comfyui"])
def test_a_merged_file_in_bfloat16_is_that_of_load_and_fuse(base, tmp_path, format):
    """The sum is float32, and rounded once."""
    tiny = base(WAN)
    (file,) = tiny.export(tmp_path / "out", tiny.adapters(BLOCKS), format)
    pipeline = DiffusionPipeline.from_pretrained(tiny.path, vae=None, text_encoder=None, tokenizer=None)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    pipeline.fuse_lora()
    fused = {name.replace(".base_layer.", "."): one for name, one in pipeline.transformer.state_dict().items()}
    merged, _ = tiny.family.merge_lora(
        str(tiny.path), stored_weights(str(tiny.path), HIGH), MergedLora(path=str(file)), where="x"
    )
    for name in merged.tensor_names(HIGH):
        one, other = merged.read(HIGH, name).bfloat16(), fused[name].bfloat16()
        apart = (one.view(torch.int16).int() - other.view(torch.int16).int()).abs().max()
        assert apart <= 1, name


# --- runs that start from a file ------------------------------------------------------------------------------------------


def run_of(tiny: Path, data: Path, out: Path, steps: int, **lora: Any) -> dict[str, Any]:
    lora = {"rank": 3, "alpha": 2, "targets": BLOCKS, **lora}
    training = {"seed": 1, "data_path": str(data), "output_dir": str(out), "max_train_steps": steps}
    return {
        "recipe": {"family": "wan", "method": "finetune"},
        "roles": {"student": {"path": str(tiny), "trainable": True, "lora": lora}},
        "training": {**training, "learning_rate": 0.03},
    }


def built(folder: Path, run: dict[str, Any]) -> dict[str, Tensor]:
    """The student's adapters as a run begins, by the names of a checkpoint."""
    handle = build_run(folder, run).method.bundle["student"]
    return {name: one.detach() for name, one in handle.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("format", ["diffusers", "comfyui", "lightx2v", "musubi"])
def test_adapters_start_from_a_file_to_the_bit(base, latent_data, tmp_path, format):
    tiny = base(WAN)
    own = tiny.adapters(BLOCKS)
    (file,) = tiny.export(tmp_path / "out", own, format)
    found = built(tmp_path, run_of(tiny.path, latent_data, tmp_path / "run", 1, init=str(file)))
    assert found.keys() == {f"{HIGH}.{name}" for name in own[HIGH]}
    assert [name for name, one in own[HIGH].items() if not torch.equal(found[f"{HIGH}.{name}"], one)] == []


def test_what_the_file_does_not_hold_starts_at_no_effect_and_is_told(base, latent_data, tmp_path, caplog):
    tiny = base(WAN)
    (file,) = tiny.export(tmp_path / "out", tiny.adapters(["to_q"]), "comfyui")
    run = run_of(tiny.path, latent_data, tmp_path / "run", 1, init=str(file.parent), targets=["to_q", "to_v"])
    found, fresh = built(tmp_path, run), built(tmp_path, {**run, "roles": without_init(run)})
    assert "4 layers (transformer.blocks.0.attn1.to_v, " in caplog.text
    assert "have no adapters in the file, and start at no effect" in caplog.text
    other = {name for name in found if not torch.equal(found[name], fresh[name])}
    assert other == {name for name in found if ".to_q." in name}


def without_init(run: dict[str, Any]) -> dict[str, Any]:
    student = run["roles"]["student"]
    return {"student": {**student, "lora": {key: one for key, one in student["lora"].items() if key != "init"}}}


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 4}, "have rank 3, and the role's lora.rank is 4.*set rank: 3"),
        ({"alpha": 3}, "have alpha 2 at rank 3, and the role's lora.alpha is 3.*set alpha: 2"),
        ({"alpha": None}, "the role's lora.alpha is 3"),
        ({"targets": ["to_q"]}, r"16 layers \(transformer.blocks.0.attn1.to_k, .* not among the role's targets"),
        ({"init": {"transformer_2": "x"}}, "no network 'transformer_2'"),
        ({"init": "gone.safetensors"}, "there is no file gone.safetensors"),
    ],
)
def test_a_file_that_is_not_the_roles_is_told_by_check(base, latent_data, tmp_path, capsys, lora, message):
    tiny = base(WAN)
    (file,) = tiny.export(tmp_path / "out", tiny.adapters(BLOCKS), "comfyui")
    run = run_of(tiny.path, latent_data, tmp_path / "run", 1, **{"init": str(file), **lora})
    assert main(["check", str(write_run(tmp_path / "run.yaml", run))]) == 2
    text = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "roles.student.lora.init" in text
    assert re.search(message, text)


def test_each_network_starts_from_a_file_of_its_own(base, tmp_path):
    tiny = base(A14B)
    own = tiny.adapters(BLOCKS)
    high, low = tiny.export(tmp_path / "out", own, "comfyui")
    lora = LoraConfig(rank=3, alpha=2, init={HIGH: str(high), LOW: str(low)})
    names = [f"{module}.{name}" for module, tensors in own.items() for name in tensors]
    found = tiny.family.initial_lora(str(tiny.path), lora, names, where="init")
    assert found.keys() == {*names}
    assert all(torch.equal(found[f"{module}.{name}"], one) for module in own for name, one in own[module].items())


@pytest.mark.slow
def test_roles_on_one_base_start_from_files_and_are_exported_as_they_were(base, latent_data, tmp_path):
    """Nothing is learnt, so that what is exported of the checkpoint is what each of its roles started from, to the bit.

    A run that goes on needs no file.
    """
    tiny = base(WAN)
    run = {"recipe": {"family": "wan", "method": "dmd2"}, **sections("dmd2", lambda _: str(tiny.path))}
    of_run = run_of(tiny.path, latent_data, tmp_path / "run", 2)
    run["training"], lora = {**of_run["training"], "learning_rate": 0.0}, of_run["roles"]["student"]["lora"]
    files = {}
    for rank, (role, format) in enumerate({"student": "comfyui", "critic": "musubi"}.items(), 1):
        adapters = tiny.adapters(BLOCKS, rank)
        (files[role],) = tiny.export(tmp_path / role, adapters, format, rank=rank)
        run["roles"][role] |= {"share": "teacher", "lora": {**lora, "rank": rank, "init": str(files[role])}}
    assert main([str(write_run(tmp_path / "run.yaml", run))]) == 0
    for role, format in (("student", "comfyui"), ("critic", "musubi")):
        out = tmp_path / f"{role}-again"
        asked = ["--role", role, "--lora", "separate", "--format", format]
        assert main(["export", str(tmp_path / "run"), str(out), *asked]) == 0
        one, other = load_file(files[role]), load_file(out / FILES[HIGH])
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
        files[role].unlink()
    run["training"] |= {"max_train_steps": 4, "resume_from_checkpoint": "latest"}
    build_run(tmp_path, run)


def test_all_linear_names_every_linear_layer(base, latent_data, tmp_path):
    tiny = base(WAN)
    found = built(tmp_path, run_of(tiny.path, latent_data, tmp_path / "run", 1, targets=["all-linear"]))
    layers = {name.partition(".lora_")[0].removeprefix(f"{HIGH}.") for name in found}
    assert layers == {*linear_layers(tiny.networks[HIGH])}


# --- commands -------------------------------------------------------------------------------------------------------------

SIZE = ["--height", "32", "--width", "32", "--num-frames", "5", "--steps", "2", "--guidance-scale", "1"]


def test_sample_merges_files_as_load_and_fuse(base, tmp_path, capsys, monkeypatch):
    """What is sampled is the network that plain diffusers makes of base, file and scale."""
    tiny = base(A14B)
    high, low = tiny.export(tmp_path / "out", tiny.adapters(BLOCKS), "musubi")
    seen: dict[str, dict[str, Tensor]] = {}

    def state(self: Any, step: int, request: Any) -> None:
        seen.update({name: module.state_dict() for name, module in request.sample_handle.modules.items()})

    monkeypatch.setattr(SamplingValidator, "log_validation", state)
    given = ["--lora", str(high), "--lora", f"{LOW}={low}", "--lora-scale", "0.5"]
    out = ["--out", str(tmp_path / "videos")]
    assert main(["sample", str(tiny.path), "--prompt", "a cat", *SIZE, *out, *given]) == 0
    assert f"+ 0.5 x {high}" in capsys.readouterr().out
    pipeline = DiffusionPipeline.from_pretrained(tiny.path, vae=None, text_encoder=None, tokenizer=None)
    for network, file in ((HIGH, high), (LOW, low)):
        into = {"load_into_transformer_2": True} if network == LOW else {}
        pipeline.load_lora_weights(file.parent, weight_name=file.name, **into)
        pipeline.fuse_lora(components=[network], lora_scale=0.5)
        pipeline.unload_lora_weights()
        fused = {n.replace(".base_layer.", "."): one for n, one in getattr(pipeline, network).state_dict().items()}
        assert fused.keys() == seen[network].keys()
        for name, value in fused.items():
            torch.testing.assert_close(seen[network][name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_wrong_options_of_the_commands_are_told(base, tmp_path, capsys):
    tiny = base(WAN)
    sample = ["sample", str(tiny.path), "--prompt", "a cat", *SIZE, "--out", str(tmp_path / "videos")]
    for given, message in (
        (["--lora-scale", "2"], "there is no --lora"),
        (["--lora", "gone.safetensors"], "--lora gone.safetensors: there is no file"),
        (["--lora", f"{LOW}=x.safetensors"], "no network 'transformer_2'"),
    ):
        assert main([*sample, *given]) == 2
        assert message in re.sub(r"\s+", " ", capsys.readouterr().err)
