"""Wan 2.2 A14B through the commands: which network is trained, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import WanPipeline

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.cli.main import main
from fastvideo_wan.family import WanFamily
from fastvideo_wan.loading import load_transformer
from tests.families import Kind, TinyFamily, write_tiny_family
from tests.methods import ALL, ON_TRAJECTORIES, sections
from tests.test_docs import example

HIGH, LOW = "transformer", "transformer_2"
KIND = Kind("wan", {"variant": "a14b"})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyFamily:
    return write_tiny_family(KIND, tmp_path_factory.mktemp("a14b"))


def run_of(tiny: TinyFamily, out: Path, method: str, **student: Any) -> dict[str, Any]:
    data = tiny.trajectories() if method in ON_TRAJECTORIES else tiny.data
    training = {"output_dir": str(out), "data_path": str(data), "max_train_steps": 4, "learning_rate": 1e-3}
    run = sections(method, lambda role: str(tiny.base))
    run["roles"]["student"] |= student
    return {"recipe": {"family": "wan", "method": method}, **run, "training": training}


def start(run: dict[str, Any], folder: Path, *arguments: str) -> int:
    (folder / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    return main([*arguments, str(folder / "run.yaml")])


def base_weights(tiny: TinyFamily, network: str) -> dict[str, torch.Tensor]:
    loaded = load_transformer(str(tiny.base), dtype=torch.float32, device=torch.device("cpu"), name=network)
    return loaded.state_dict()


def changed(tiny: TinyFamily, out: Path, role: str = "student") -> set[str]:
    """The networks whose weights a run moved."""
    (checkpoint,) = out.glob("checkpoint-*")
    found = set()
    for network, state in read_role_weights(checkpoint, role, ema=False).items():
        before = base_weights(tiny, network)
        assert state.keys() == before.keys()
        if any(not torch.equal(state[name], before[name]) for name in before):
            found.add(network)
    return found


@pytest.mark.parametrize("network", [HIGH, LOW])
def test_a_run_that_trains_one_network_leaves_the_other_s_bits_and_exports_both(tiny, tmp_path, capsys, network):
    """The run of docs/wan.md."""
    run = yaml.safe_load(example("docs/wan.md", "wan22.yaml"))
    run["roles"]["student"] |= {"path": str(tiny.base), "train_modules": [network]}
    run["training"] |= run_of(tiny, tmp_path / "out", "finetune")["training"] | {"weight_decay": 0.1}
    assert start(run, tmp_path) == 0
    assert changed(tiny, tmp_path / "out") == {network}
    assert main(["export", str(tmp_path / "out"), str(tmp_path / "model")]) == 0
    pipeline = WanPipeline.from_pretrained(tmp_path / "model")
    assert pipeline.config.boundary_ratio == 0.875
    for name in (HIGH, LOW):
        after, before = getattr(pipeline, name).state_dict(), base_weights(tiny, name)
        assert any(not torch.equal(after[key], before[key]) for key in before) == (name == network)
    size = ["--height", "32", "--width", "48", "--num-frames", "5", "--steps", "2"]
    scales = ["--guidance-scale", "4", "--guidance-scale-2", "3"]
    sample = ["sample", str(tmp_path / "out"), "--prompt", "a cat", *size, "--out", str(tmp_path / "videos")]
    assert main([*sample, *scales]) == 0
    assert (tmp_path / "videos" / "00.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", [*ALL])
def test_every_method_trains_on_it(tiny, tmp_path, method):
    """Without a method's knowing; the student's networks are those that its own noise levels reach."""
    run = run_of(tiny, tmp_path / "out", method)
    assert start(run, tmp_path) == 0
    moved = changed(tiny, tmp_path / "out")
    assert moved
    assert moved <= {HIGH, LOW}


@pytest.mark.slow
def test_a_phase_trains_one_network_and_the_next_phase_goes_on_from_it(tmp_path, tiny, capsys):
    """The run of docs/dmd2.md."""
    first = yaml.safe_load(example("docs/dmd2.md", "phased.yaml"))
    for role in first["roles"].values():
        role["path"] = str(tiny.base)
    first["training"] |= run_of(tiny, tmp_path / "high", "dmd2")["training"]
    first["method_config"] |= {"generator_update_interval": 2}
    assert start(first, tmp_path) == 0
    assert (changed(tiny, tmp_path / "high"), changed(tiny, tmp_path / "high", "critic")) == ({HIGH}, {HIGH})
    second = yaml.safe_load(yaml.safe_dump(first))
    second["roles"]["student"] = {"path": str(tmp_path / "high"), "trainable": True, "train_modules": [LOW]}
    del second["roles"]["critic"]["train_modules"]
    second["training"]["output_dir"] = str(tmp_path / "low")
    assert start(second, tmp_path) == 0
    assert changed(tiny, tmp_path / "low") == {HIGH, LOW}
    before, after = (
        read_role_weights(next((tmp_path / name).glob("checkpoint-*")), "student", ema=False)
        for name in ("high", "low")
    )
    assert all(torch.equal(before[HIGH][key], value) for key, value in after[HIGH].items())


@pytest.mark.slow
def test_adapters_of_one_network_are_merged_where_they_were_trained(tiny, tmp_path, capsys):
    lora = {"rank": 2, "targets": ["to_q", "to_v"]}
    run = run_of(tiny, tmp_path / "out", "finetune", train_modules=[LOW], lora=lora)
    run["training"]["learning_rate"] = 0.1
    assert start(run, tmp_path) == 0
    assert main(["export", str(tmp_path / "out"), str(tmp_path / "merged")]) == 0
    assert main(["export", str(tmp_path / "out"), str(tmp_path / "adapters"), "--lora", "separate"]) == 0
    (file,) = (tmp_path / "adapters").iterdir()
    assert file.name == "pytorch_lora_weights_transformer_2.safetensors"
    assert "load_into_transformer_2=True" in capsys.readouterr().out
    merged, loaded = WanPipeline.from_pretrained(tmp_path / "merged"), WanPipeline.from_pretrained(tiny.base)
    loaded.load_lora_weights(tmp_path / "adapters", weight_name=file.name, load_into_transformer_2=True)
    noise = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    given = {"hidden_states": noise, "timestep": torch.tensor([500.0]), "encoder_hidden_states": torch.ones(1, 9, 32)}
    outs = [getattr(one, LOW)(**given, return_dict=False)[0] for one in (merged, loaded)]
    torch.testing.assert_close(*outs, atol=1e-5, rtol=1e-4)
    base = WanPipeline.from_pretrained(tiny.base)
    assert (outs[0] - getattr(base, LOW)(**given, return_dict=False)[0]).abs().max() > 1e-3
    assert all(
        torch.equal(a, b) for a, b in zip(merged.transformer.parameters(), base.transformer.parameters(), strict=True)
    )


@pytest.mark.slow
def test_networks_that_wait_in_host_memory_train_the_same_bits_and_go_on_from_a_checkpoint(
    tiny, tmp_path, capsys, monkeypatch
):
    """The teacher's two, and of student and critic those that are not trained; on one process."""
    role = (
        WanFamily._role
    )  # loads them alike: on the CPU the memory of files is aligned otherwise, which rounding shows
    monkeypatch.setattr(WanFamily, "_role", lambda family, cfg, name, on_meta: role(family, cfg, name, on_meta=True))
    ends = {}
    for offloaded in (False, True):
        run = run_of(tiny, tmp_path / str(offloaded), "dmd2", train_modules=[HIGH])
        run["roles"]["critic"]["train_modules"] = [LOW]
        run["training"] |= {"max_train_steps": 2, "frozen_cpu_offload": offloaded, "mixed_precision": "bf16"}
        assert start(run, tmp_path) == 0
        run["training"] |= {"max_train_steps": 4, "checkpoints_total_limit": 1}
        assert start(run, tmp_path, "--resume", "latest") == 0
        ends[offloaded] = next((tmp_path / str(offloaded)).glob("checkpoint-*4"))
    for role, network in (("student", HIGH), ("critic", LOW)):
        apart, there = (read_role_weights(ends[offloaded], role, ema=False) for offloaded in (True, False))
        assert all(torch.equal(there[key][name], value) for key in (HIGH, LOW) for name, value in apart[key].items())
        assert changed(tiny, tmp_path / "True", role) == {network}


def test_what_cannot_be_meant_is_told_before_weights_are_loaded(tiny, tmp_path, capsys):
    run = run_of(tiny, tmp_path / "out", "finetune", train_modules=["transformer_3"])
    assert start(run, tmp_path, "check") == 2
    text = capsys.readouterr().err
    assert "roles.student.train_modules" in text
    assert "no network 'transformer_3'" in text
    assert "transformer, transformer_2" in text
    phased = run_of(tiny, tmp_path / "out", "dmd2") | {"method_config": {"phased": True}}
    assert start(phased, tmp_path, "check") == 2
    assert "phased trains one of the student's networks in a run, and this one trains all" in capsys.readouterr().err
    run["roles"]["student"] |= {"train_modules": [HIGH], "trainable": False}
    assert start(run, tmp_path, "check") == 2
    assert "for a role that is not trained" in capsys.readouterr().err
    sample = ["sample", str(tiny.base), "--prompt", "a cat", "--steps", "2", "--out", str(tmp_path / "videos")]
    assert main([*sample, "--guidance-scale", "1", "--guidance-scale-2", "3"]) == 2
    assert "guidance scales 1 and 3" in capsys.readouterr().err
