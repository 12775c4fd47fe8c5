"""Wan with video sparse attention through the commands: training, resuming, sampling, exporting, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import WanPipeline

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.cli.main import main
from fastvideo_core.contracts.family import open_family
from fastvideo_core.dispatch.examine import examine
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.memory_estimate import estimate_run
from fastvideo_core.registry import PluginRegistry
from fastvideo_testing.prepared_family import Clip, encode_clips, write_clips
from fastvideo_wan.folder import open_folder
from fastvideo_wan.loading import load_transformer
from tests.methods import sections
from tests.test_docs import example

CLIP = Clip(num_frames=9, height=64, width=96)
"""Latents of 3 x 8 x 12, tokens of 3 x 4 x 6: two tiles, the second of 24 tokens."""
GATE = "to_gate_compress"
SIZE = ("--num-frames", "9", "--height", "64", "--width", "96")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Wan in `base` and four clips' latents in `data`."""
    folder = tmp_path_factory.mktemp("sparse")
    family = open_family("wan", PluginRegistry())
    family.tiny(folder / "base", seed=0)
    encoder = family.encoder(str(folder / "base"), device=torch.device("cpu"))
    write_clips(folder / "clips", CLIP, encoder.geometry.fps, sound=False)
    encode_clips(encoder, folder / "clips", folder / "data", CLIP)
    return folder


def run_of(tiny: Path, out: Path, method: str = "dmd2", **training: Any) -> dict[str, Any]:
    given = {"output_dir": str(out), "data_path": str(tiny / "data"), "max_train_steps": 4, "learning_rate": 1e-3}
    given |= {"VSA_sparsity": 0.5, "VSA_decay_rate": 0.25, **training}
    if method != "dmd2":
        run = sections(method, lambda role: str(tiny / "base"), attn_kind="vsa")
        return {"recipe": {"family": "wan", "method": method}, **run, "training": given}
    run = yaml.safe_load(example("docs/wan.md", "vsa.yaml"))
    for role in run["roles"].values():
        role["path"] = str(tiny / "base")
    run["method_config"]["generator_update_interval"] = 2
    return {**run, "training": {**run["training"], "VSA_decay_interval_steps": 1, **given}}


def start(run: dict[str, Any], folder: Path, *arguments: str) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    return main([*arguments, str(folder / "run.yaml")])


def weights(out: Path, role: str = "student") -> dict[str, torch.Tensor]:
    checkpoint = sorted(out.glob("checkpoint-*"))[-1]
    return read_role_weights(checkpoint, role, ema=False)["transformer"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(tiny: Path) -> Path:
    assert start(run_of(tiny, tiny / "out"), tiny) == 0
    return tiny / "out"


def test_the_student_s_gates_are_trained_and_the_critic_has_none(trained):
    gates = {name: value for name, value in weights(trained).items() if GATE in name}
    assert gates
    assert all(value.abs().max() > 0 for value in gates.values())
    assert not any(GATE in name for name in weights(trained, "critic"))


def test_a_resumed_run_is_the_uninterrupted_one(tiny, trained, tmp_path):
    out = tmp_path / "out"
    assert start(run_of(tiny, out, max_train_steps=2), tmp_path) == 0
    assert start(run_of(tiny, out), tmp_path, "--resume", "latest") == 0
    for role in ("student", "critic"):
        assert same(weights(out, role), weights(trained, role))


@pytest.mark.parametrize("kind", ["full", "ops", "block_skip"])
def test_recomputed_blocks_attend_as_they_did(tiny, trained, tmp_path, kind):
    assert start(run_of(tiny, tmp_path / "out", enable_gradient_checkpointing_type=kind), tmp_path) == 0
    assert same(weights(tmp_path / "out"), weights(trained))


def test_the_sparsity_is_that_of_the_step(tiny, trained, tmp_path):
    """0, .25 and then .5: at once .5 it is another run; with dense attention, another one still."""
    at_once = run_of(tiny, tmp_path / "one", VSA_decay_rate=1.0)
    assert start(at_once, tmp_path / "a") == 0
    dense = run_of(tiny, tmp_path / "two", VSA_sparsity=0.0)
    dense["method_config"]["attn_kind"] = "dense"
    assert start(dense, tmp_path / "b") == 0
    students = [weights(trained), weights(tmp_path / "one"), weights(tmp_path / "two")]
    name = "blocks.0.attn1.to_q.weight"
    assert len({tuple(one[name].flatten().tolist()) for one in students}) == 3


def test_an_export_samples_as_the_checkpoint_and_says_what_plain_diffusers_lacks(trained, tmp_path, capsys):
    model = tmp_path / "model"
    assert main(["export", str(trained), str(model)]) == 0
    assert "does not load its gates (to_gate_compress)" in capsys.readouterr().out
    stored = load_transformer(str(model), dtype=torch.float32, device=torch.device("cpu")).state_dict()
    assert same(stored, weights(trained))
    videos = {}
    for name, path in (("checkpoint", trained), ("export", model)):
        words = ["sample", str(path), "--prompt", "a cat", *SIZE, "--out", str(tmp_path / name)]
        assert main(words) == 0
        videos[name] = (tmp_path / name / "00.png").read_bytes()
    assert videos["checkpoint"] == videos["export"]
    plain = WanPipeline.from_pretrained(model)
    assert not any(GATE in name for name in plain.transformer.state_dict())


def test_a_gated_folder_is_trained_sparsely_or_not_at_all(tiny, trained, tmp_path, capsys):
    model = tmp_path / "model"
    assert main(["export", str(trained), str(model)]) == 0
    run = run_of(tiny, tmp_path / "out", "finetune", max_train_steps=1, learning_rate=1e-9)
    run["roles"]["student"]["path"] = str(model)
    assert start(run, tmp_path) == 0
    name = f"blocks.0.{GATE}.weight"
    torch.testing.assert_close(weights(tmp_path / "out")[name], weights(trained)[name], rtol=0, atol=1e-8)
    capsys.readouterr()
    run["method_config"]["attn_kind"], run["training"]["VSA_sparsity"] = "dense", 0.0
    assert start(run, tmp_path, "check") == 2
    assert "has the gates of sparse attention, which dense attention does not use" in capsys.readouterr().err
    run["method_config"]["attn_kind"], run["pipeline_config"] = "vsa", {"sparse_gates": False}
    assert start(run, tmp_path, "check") == 2
    assert f"pipeline_config.sparse_gates: found false, and {model} has gates" in capsys.readouterr().err
    run = run_of(tiny, tmp_path / "out")
    run["roles"]["student"]["path"] = run["roles"]["critic"]["path"] = str(model)
    assert start(run, tmp_path, "check") == 2
    assert f"roles.critic.path: {model} has the gates" in capsys.readouterr().err


def test_an_export_without_gates_is_trained_on_as_it_was_or_densely(tiny, tmp_path, capsys):
    run = run_of(tiny, tmp_path / "out", "finetune", max_train_steps=1)
    run["pipeline_config"] = {"sparse_gates": False}
    assert start(run, tmp_path) == 0
    assert main(["export", str(tmp_path / "out"), str(tmp_path / "model")]) == 0
    assert "FastVideo gives it gates of zero" in capsys.readouterr().out
    run = run_of(tiny, tmp_path / "dense", "finetune", max_train_steps=1)
    run["roles"]["student"]["path"] = str(tmp_path / "model")
    assert start(run, tmp_path, "check") == 2
    assert "gates of zero would take its coarse stage away" in capsys.readouterr().err
    run["method_config"]["attn_kind"], run["training"]["VSA_sparsity"] = "dense", 0.0
    assert start(run, tmp_path) == 0
    assert main(["export", str(tmp_path / "dense"), str(tmp_path / "second")]) == 0
    assert open_folder(str(tmp_path / "model"), where="path").marked == {"vsa_sparsity": 0.5}
    assert open_folder(str(tmp_path / "second"), where="path").marked == {}


def test_a_run_starts_from_a_dense_checkpoint_with_gates_of_zero(tiny, tmp_path):
    dense = run_of(tiny, tmp_path / "dense", "finetune", max_train_steps=1, VSA_sparsity=0.0)
    dense["method_config"]["attn_kind"] = "dense"
    assert start(dense, tmp_path) == 0
    run = run_of(tiny, tmp_path / "out", "finetune", max_train_steps=1, learning_rate=1e-9)
    run["roles"]["student"]["path"] = str(tmp_path / "dense")
    assert start(run, tmp_path) == 0
    before, after = weights(tmp_path / "dense"), weights(tmp_path / "out")
    for name, value in after.items():
        torch.testing.assert_close(value, before.get(name, torch.zeros_like(value)), rtol=0, atol=1e-8)


def test_adapters_are_exported_merged_or_apart_and_other_roles_attend_densely(tiny, tmp_path, capsys):
    run = run_of(tiny, tmp_path / "out", max_train_steps=2)
    run["roles"]["student"] |= {"lora": {"rank": 2}}
    assert start(run, tmp_path) == 0
    said = {}
    for name, words in {"merged": ["--lora", "merged"], "apart": ["--lora", "separate"], "critic": []}.items():
        capsys.readouterr()
        role = ["--role", "critic"] if name == "critic" else []
        assert main(["export", str(tmp_path / "out"), str(tmp_path / name), *words, *role]) == 0
        said[name] = capsys.readouterr().out
    assert "does not load its gates" in said["merged"]
    assert "leaves out the adapters of the gates" in said["apart"]
    assert "sparsely" not in said["critic"]
    pipeline = WanPipeline.from_pretrained(tiny / "base")
    pipeline.load_lora_weights(str(tmp_path / "apart"))  # plain diffusers takes the others
    run["roles"]["student"]["lora"]["init"] = str(tmp_path / "apart" / "pytorch_lora_weights.safetensors")
    run["training"]["output_dir"] = str(tmp_path / "second")
    assert start(run, tmp_path, "check") == 0  # a sparse run takes all


def test_adapters_on_one_base_of_few_bits_train_gates_of_their_own(tiny, tmp_path):
    run = run_of(tiny, tmp_path / "out")
    for role in ("student", "critic"):
        run["roles"][role] |= {"lora": {"rank": 2}, "share": "teacher"}
    run["roles"]["teacher"]["base_precision"] = "fp8"  # gates too
    assert start(run, tmp_path) == 0
    assert any(f"{GATE}.lora_B" in name for name in weights(tmp_path / "out"))
    words = ["sample", str(tmp_path / "out"), "--prompt", "a cat", *SIZE, "--out", str(tmp_path / "videos")]
    assert main(words) == 0


def test_check_estimates_gates_and_what_is_kept_of_the_tiles(tiny, tmp_path, capsys):
    peaks = {}
    for kind in ("dense", "vsa"):
        run = run_of(tiny, tmp_path / kind, "finetune", VSA_sparsity=0.5 if kind == "vsa" else 0.0)
        run["method_config"]["attn_kind"] = kind
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
        registry = PluginRegistry()
        examined, _ = examine(load_run_config(tmp_path / "run.yaml", registry), registry, starts=True)
        estimate = estimate_run(examined)
        assert estimate is not None
        peaks[kind] = estimate
    dense, sparse = (one.roles["student"] for one in peaks.values())
    width, blocks = 24, 2
    assert sparse.weights - dense.weights == 4 * blocks * (width * width + width)
    assert dense.activations < sparse.activations < 3 * dense.activations


def test_what_cannot_be_is_refused_with_its_place(tiny, tmp_path, capsys):
    def refused(**changes: Any) -> str:
        run = run_of(tiny, tmp_path / "out", **changes.pop("training", {}))
        for section, values in changes.items():
            run[section] |= values
        assert start(run, tmp_path, "check") == 2
        return capsys.readouterr().err

    assert "training.VSA_sparsity: found 0.5, and the student's attention is dense" in refused(
        method_config={"attn_kind": "dense"}
    )
    assert "found 0.4, of the 2 tiles of 4 x 4 x 4 tokens" in refused(training={"VSA_sparsity": 0.4})
    assert "brings its own compiled kernels" in refused(training={"enable_torch_compile": True})
    assert "the student's attention is dense" in refused(
        method_config={"attn_kind": "dense"}, pipeline_config={"student_sparsity": 0.5}, training={"VSA_sparsity": 0.0}
    )
