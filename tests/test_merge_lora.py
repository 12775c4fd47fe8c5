"""LoRA files that are merged into a role's weights when these are read: as diffusers' load_lora_weights and fuse_lora do it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.cli.main import main
from fastvideo_core.config.run import MergedLora
from fastvideo_core.contracts.family import open_family
from fastvideo_core.contracts.roles import WeightSource
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import PluginRegistry
from fastvideo_diffusers.loading import stored_weights
from fastvideo_testing.runs import build_run, toy_family
from tests.conftest import write_run
from tests.distributed.ranks import run_workers
from tests.distributed.workers import weights
from tests.families import Kind
from tests.lora_files import WAN_NAMES, pairs, write_comfyui, write_diffusers, write_musubi, write_unscaled

HIGH, LOW = "transformer", "transformer_2"
SCALE = 0.7
OF_OLD = ("lora.down", "lora.up")
"""A and B as diffusers itself spelled them."""
WAN, A14B = Kind("wan"), Kind("wan", {"variant": "a14b"})
LTX1, LTX2 = Kind("ltx", {"generation": 1}), Kind("ltx", {"generation": 2})


@dataclass(frozen=True)
class Base:
    """A tiny pipeline, and its networks alone as diffusers loads them."""

    kind: Kind
    path: Path

    def pipeline(self) -> Any:
        others = ("vae", "text_encoder", "tokenizer", "audio_vae", "vocoder", "connectors")
        index = DiffusionPipeline.load_config(self.path)
        return DiffusionPipeline.from_pretrained(self.path, **{name: None for name in others if name in index})

    def source(self, *files: MergedLora) -> tuple[WeightSource, list[str | None]]:
        """The pipeline's weights with files merged, and the files' fingerprints."""
        family = open_family(self.kind.family, PluginRegistry())
        weights: WeightSource = stored_weights(str(self.path), *self.networks)
        found = []
        for file in files:
            weights, kept = family.merge_lora(str(self.path), weights, file, where="merge_lora")
            found.append(kept.fingerprint)
        return weights, found

    @property
    def networks(self) -> list[str]:
        return [name for name in (HIGH, LOW) if (self.path / name).is_dir()]

    def merged(self, network: str, *files: MergedLora) -> dict[str, Tensor]:
        weights, _ = self.source(*files)
        return {name: weights.read(network, name) for name in weights.tensor_names(network)}


def of(file: Path, **options: Any) -> MergedLora:
    return MergedLora(path=str(file), **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Callable[[Kind], Base]:
    made: dict[str, Base] = {}

    def make(kind: Kind) -> Base:
        if str(kind) not in made:
            path = tmp_path_factory.mktemp(str(kind)) / "base"
            open_family(kind.family, PluginRegistry(), "tiny").tiny(path, seed=0, **kind.options)
            made[str(kind)] = Base(kind, path)
        return made[str(kind)]

    return make


def fused(pipeline: Any, network: str, *files: tuple[Path, float]) -> dict[str, Tensor]:
    """What diffusers makes of files one after the other."""
    into = {"load_into_transformer_2": True} if network == LOW else {}
    for file, scale in files:
        pipeline.load_lora_weights(file.parent, weight_name=file.name, **into)
        pipeline.fuse_lora(components=[network], lora_scale=scale)
        pipeline.unload_lora_weights()
    state: dict[str, Tensor] = getattr(pipeline, network).state_dict()
    return {name.replace(".base_layer.", "."): value for name, value in state.items()}


def assert_equal(
    one: dict[str, Tensor], other: dict[str, Tensor], changed: set[str], before: dict[str, Tensor]
) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-6, msg=name)
    assert {name for name, value in one.items() if (value - before[name]).abs().max() > 1e-3} == changed


@pytest.mark.parametrize(
    ("kind", "network", "write"),
    [
        (WAN, HIGH, lambda path, found: write_diffusers(path, found, alpha=6)),
        (WAN, HIGH, lambda path, found: write_comfyui(path, found, alpha=6.0)),
        (WAN, HIGH, lambda path, found: write_musubi(path, found, alpha=6.0)),
        (A14B, LOW, lambda path, found: write_comfyui(path, found, alpha=6.0)),
        (A14B, HIGH, lambda path, found: write_diffusers(path, found, alpha=6)),
        (LTX1, HIGH, lambda path, found: write_diffusers(path, found, alpha=6)),
        (LTX1, HIGH, lambda path, found: write_unscaled(path, found, prefix="diffusion_model.")),
        (LTX1, HIGH, lambda path, found: write_unscaled(path, found, prefix="transformer.", parts=OF_OLD)),
        (LTX2, HIGH, lambda path, found: write_unscaled(path, found, prefix="diffusion_model.")),
        (LTX2, HIGH, lambda path, found: write_diffusers(path, found, alpha=6)),
    ],
)
def test_a_network_with_a_file_is_what_diffusers_fuses(base, tmp_path, kind, network, write):
    tiny = base(kind)
    pipeline = tiny.pipeline()
    before = {name: value.clone() for name, value in getattr(pipeline, network).state_dict().items()}
    ends = list(WAN_NAMES) if kind.family == "wan" else ["to_q", "to_out.0", "proj"]
    found = pairs(getattr(pipeline, network), ends, rank=4)
    file = write(tmp_path / "lora.safetensors", found)
    given = of(file, scale=SCALE, module=network if network == LOW else None)
    whole = tiny.merged(network, given)
    assert_equal(whole, fused(pipeline, network, (file, SCALE)), {f"{name}.weight" for name in found}, before)
    name = f"{next(iter(found))}.weight"
    assert torch.equal(tiny.source(given)[0].read(network, name, slice(3, 7)), whole[name][3:7])
    stored, _ = tiny.source()
    for other in {*tiny.networks} - {network}:
        assert torch.equal(tiny.source(given)[0].read(other, name), stored.read(other, name))


def test_names_without_a_prefix_are_those_of_the_network(base, tmp_path):
    tiny = base(WAN)
    found = pairs(tiny.pipeline().transformer, ["to_q"], rank=1)
    plain, prefixed = (
        tiny.merged(HIGH, of(write_unscaled(tmp_path / f"{len(prefix)}.safetensors", found, prefix=prefix)))
        for prefix in ("", "transformer.")
    )
    assert_equal(plain, prefixed, {f"{name}.weight" for name in found}, tiny.merged(HIGH))


def test_several_files_add_up_with_ranks_and_biases_of_their_own(base, tmp_path):
    tiny = base(WAN)
    pipeline = tiny.pipeline()
    before = {name: value.clone() for name, value in pipeline.transformer.state_dict().items()}
    mixed = pairs(pipeline.transformer, ["to_q"], rank=4) | pairs(pipeline.transformer, ["ffn.net.2"], rank=3, seed=1)
    first = write_unscaled(tmp_path / "first.safetensors", mixed, prefix="transformer.")
    found = pairs(pipeline.transformer, ["to_q", "to_v"], rank=2, seed=2)
    second = write_comfyui(tmp_path / "second.safetensors", found, alpha=1.0)
    bias = {
        f"{key.removesuffix('.alpha')}.diff_b": torch.ones(24) for key in load_file(second) if key.endswith(".alpha")
    }
    save_file(load_file(second) | bias, second)
    changed = {f"{name}.weight" for name in (*mixed, *found)} | {f"{name}.bias" for name in found}
    expected = fused(pipeline, HIGH, (first, -0.5), (second, 1.0))
    assert_equal(tiny.merged(HIGH, of(first, scale=-0.5), of(second)), expected, changed, before)


def test_a_fingerprint_is_of_values_and_alpha_and_not_of_the_path(base, tmp_path):
    tiny = base(WAN)
    found = pairs(tiny.pipeline().transformer, ["to_q"], rank=2)
    files = [write_diffusers(tmp_path / f"{n}.safetensors", found, alpha=alpha) for n, alpha in enumerate((2, 2, 3))]
    one, same, other = tiny.source(*map(of, files))[1]
    assert one == same != other


def refused(run: dict[str, Any], folder: Path, capsys: Any, *arguments: str) -> str:
    assert main([*arguments, str(write_run(folder / "run.yaml", run))]) == 2
    return re.sub(r"\s+", " ", capsys.readouterr().err)


def run_of(tiny: Path, data: Path, out: Path, steps: int, files: list[dict[str, Any]], **role: Any) -> dict[str, Any]:
    student = {"path": str(tiny), "trainable": True, "merge_lora": files, **role}
    training = {
        "seed": 1,
        "data_path": str(data),
        "output_dir": str(out),
        "max_train_steps": steps,
        "learning_rate": 0.03,
    }
    recipe = {"family": "wan", "method": "finetune"}
    return {"recipe": recipe, "roles": {"student": student}, "training": training}


@pytest.fixture(scope="module")
def file(tiny_wan, tmp_path_factory) -> Path:
    network = DiffusionPipeline.from_pretrained(tiny_wan, vae=None, text_encoder=None, tokenizer=None).transformer
    path = tmp_path_factory.mktemp("file") / "lora.safetensors"
    return write_diffusers(path, pairs(network, ["to_q", "net.2"], rank=2), alpha=3)


@pytest.fixture
def expected(tiny_wan, file) -> dict[str, Tensor]:
    pipeline = DiffusionPipeline.from_pretrained(tiny_wan, vae=None, text_encoder=None, tokenizer=None)
    return fused(pipeline, HIGH, (file, SCALE))


LORA = {"rank": 2, "targets": ["to_v"]}


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


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        (
            LTX2,
            "text_embedding_projection.aggregate_embed.lora_A.weight",
            "of other components: connectors.text_proj_in",
        ),
        (
            WAN,
            "diffusion_model.blocks.0.norm3.diff",
            "of whole differences, which diffusers does not read: diffusion_model",
        ),
    ],
)
def test_what_is_of_no_network_of_the_role_is_left_out_with_words(base, tmp_path, caplog, kind, more, told):
    tiny = base(kind)
    found = pairs(tiny.pipeline().transformer, ["to_q"], rank=2)
    if kind == WAN:
        file = write_comfyui(tmp_path / "lora.safetensors", found, alpha=1.0)
    else:
        file = write_unscaled(tmp_path / "lora.safetensors", found, prefix="diffusion_model.")
    before = tiny.merged(HIGH, of(file))
    save_file(load_file(file) | {more: torch.zeros(2, 2)}, file)
    tiny.source(of(file))
    assert (told in caplog.text) is (kind == LTX2)  # a difference of zeros is none
    save_file(load_file(file) | {more: torch.ones(2, 2)}, file)
    after = tiny.merged(HIGH, of(file))
    assert caplog.text.count(told) == 1  # although it was opened twice
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_a_file_of_the_hub_is_fetched_and_recorded_by_its_name(base, file, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names: asked.append(names) or str(file))
    name = "org/name/folder/lora.safetensors"
    family = open_family("wan", PluginRegistry())
    path = str(base(WAN).path)
    _, kept = family.merge_lora(path, stored_weights(path, HIGH), MergedLora(path=name), where="merge_lora")
    assert asked == [("org/name", "folder/lora.safetensors")]
    assert kept.path == name
    assert kept.fingerprint == base(WAN).source(of(file))[1][0]


def test_a_file_of_the_hub_that_cannot_be_fetched_is_told(base):
    with pytest.raises(ConfigError, match="this machine is offline"):
        base(WAN).source(MergedLora(path="org/name/lora.safetensors"))


def test_a_family_that_merges_none_says_so(tmp_path):
    role = {"path": "org/base", "trainable": True, "merge_lora": [{"path": "x.safetensors"}]}
    training = {"output_dir": str(tmp_path / "out"), "max_train_steps": 1}
    run = {"recipe": {"family": "toy", "method": "finetune"}, "roles": {"student": role}, "training": training}
    with toy_family(), pytest.raises(ConfigError, match=r"roles.student.merge_lora: .*merges no LoRA files"):
        build_run(tmp_path, run)


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
