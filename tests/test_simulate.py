"""`simulate` on a tiny Wan: counted ranks against derived ones, memory against `check`, and what the command writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist
import yaml

from fastvideo_core.cli.main import main as distill
from fastvideo_core.dispatch.examine import Run, examine
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import PluginRegistry
from fastvideo_testing.runs import resolve_run, toy_family
from fastvideo_tools.simulate import iterate, simulation
from fastvideo_tools.simulate.iterate import BACKWARD, FORWARD, WITH_GRAPH
from fastvideo_tools.simulate.meter import Part, Sent
from fastvideo_tools.simulate.simulation import Simulation, simulate
from fastvideo_tools.simulate.timing import Shape, shaped
from fastvideo_wan.tiny import write_tiny_pipeline
from tests.distributed.test_wan import run_of
from tests.distributed.workers import toy_run
from tests.test_memory_estimate import TOLERANCE

INTERVAL = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("simulate")
    run = run_of(path, "t2v", "dmd2", size=(3, 16, 16))
    write_tiny_pipeline(path / "wide", num_heads=4, head_dim=16, ffn_dim=256)
    for role in run["roles"].values():
        role["path"] = str(path / "wide")
    run["method_config"] |= {"generator_update_interval": INTERVAL, "rollout_mode": "simulate"}
    sizes = {"num_height": 128, "num_width": 128, "num_frames": 9}
    options = {"mixed_precision": "bf16", "enable_gradient_checkpointing_type": "full", "hsdp_shard_dim": 8, **sizes}
    run["training"] |= {**options, "output_dir": str(path / "out"), "num_gpus": 8}
    (path / "run.yaml").write_text(yaml.safe_dump(run))
    return path


def resolved(folder: Path, gpus: int, **options: object) -> Run:
    registry = PluginRegistry()
    cfg = load_run_config(folder / "run.yaml", registry, {"num_gpus": gpus, **options})
    return examine(cfg, registry, starts=False)[0]


@pytest.fixture(scope="module")
def on_8(folder: Path) -> Simulation:
    return simulate(resolved(folder, 8))


@pytest.fixture(scope="module")
def counted(folder: Path) -> Simulation:
    return simulate(resolved(folder, 512))


def test_other_numbers_of_gpus_are_derived_as_they_would_be_counted(on_8: Simulation, counted: Simulation) -> None:
    one, many = Shape(1, 8, 8), Shape(64, 8, 8)
    for few, more in zip(on_8.kinds, counted.kinds, strict=True):
        assert few.parts.keys() == more.parts.keys()
        for part, cost in few.parts.items():
            assert dict(shaped(part, cost, one, many).sent) == dict(more.parts[part].sent), part
            assert cost.flops == more.parts[part].flops
            assert dict(shaped(part, more.parts[part], many, one).sent) == dict(cost.sent)
    assert counted.roles == on_8.roles
    assert counted.samples == 64 * on_8.samples
    assert not dist.is_initialized()


def test_each_kind_of_iteration_has_its_share_and_its_mean_number_of_calls(on_8: Simulation) -> None:
    critic, both = on_8.kinds
    assert (critic.due, both.due) == (("critic",), ("student", "critic"))
    assert (critic.share, both.share) == (1 - 1 / INTERVAL, 1 / INTERVAL)
    # three steps: before the one that is trained or taken there are none, one or two
    assert critic.calls[Part("student", FORWARD)] == pytest.approx(2, abs=0.4)
    assert both.calls[Part("student", FORWARD)] == pytest.approx(1, abs=0.7)
    assert both.calls[Part("critic", FORWARD)] == both.calls[Part("student", WITH_GRAPH)] == 1
    flops = both.mean([critic])[Part("student", FORWARD)].flops["linear"]
    one = critic.parts[Part("student", FORWARD)].flops["linear"] / critic.drawn[Part("student", FORWARD)]
    assert flops == pytest.approx(one * both.calls[Part("student", FORWARD)])


def test_four_that_share_a_sample_hold_less_and_exchange_its_tokens(
    folder: Path, on_8: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iterate, "DRAWS", 2)
    found = simulate(resolved(folder, 8, sequence_parallel=4))
    assert found.samples == on_8.samples / 4
    assert found.roles == on_8.roles
    assert found.peak < on_8.peak
    for few, alone in zip(found.kinds, on_8.kinds, strict=True):
        for part, cost in few.parts.items():
            exchanged = {key for key in cost.sent if key.tokens}
            assert exchanged <= {Sent(kind, (0, 1, 2, 3), tokens=True) for kind in ("all-to-all", "all-gather")}
            assert bool(exchanged) == (part.what in (FORWARD, WITH_GRAPH, BACKWARD))
            rest = {key: entry for key, entry in cost.sent.items() if not key.tokens}
            assert rest == alone.parts[part].sent
            # all heads of a quarter of the tokens, then a quarter of the heads of all
            assert cost.flops["attention"] == pytest.approx(alone.parts[part].flops["attention"] / 4)


def test_a_family_without_an_outline_is_refused(tmp_path: Path) -> None:
    with toy_family():
        run = resolve_run(tmp_path, toy_run("finetune", tmp_path / "out", num_gpus=2))
        with pytest.raises(ConfigError, match="'toy': a family has no `outline`"):
            simulate(run)
    assert not dist.is_initialized()


def test_memory_is_what_check_estimates(on_8: Simulation) -> None:
    for name, held in on_8.roles.items():
        estimate = on_8.estimate.roles[name]
        assert (held.parameters, held.gradients) == (estimate.weights, estimate.gradients)
        assert held.optimizer == pytest.approx(estimate.optimizer, rel=0.01)
    assert on_8.peak == pytest.approx(on_8.estimate.peak, rel=TOLERANCE)


def test_the_command_prints_and_writes_everything(
    folder: Path, counted: Simulation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "simulate", lambda run, said: replace(counted, run=run))
    page = folder / "page.html"
    arguments = ["--gpus", "512", "--hardware", "h200", "--html", str(page), "--json", "--sweep"]
    assert distill(["simulate", str(folder / "run.yaml"), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpus"], found["nodes"], found["replicas"], found["shards"]) == (512, 64, 64, 8)
    assert found["scaling"][0]["efficiency"] == 1
    assert found["scaling"][-1]["samples_per_second"] == pytest.approx(found["mean"]["samples_per_second"])
    assert found["mean"]["overlapped"] <= found["mean"]["apart"]
    assert {one["changes"]["hsdp_shard_dim"] for one in found["sweep"]} == {8, 16, 32, 64, 128, 256, 512}
    # not 8, as the network has 4 heads
    assert {one["changes"]["sequence_parallel"] for one in found["sweep"]} == {1, 2, 4}
    assert found["notes"] == [f"num_gpus: 8 of {folder / 'run.yaml'} is replaced by --gpus 512"]
    text = page.read_text()
    for part in (
        "dmd2 of wan on 512 GPUs",
        "What each sends",
        "reduce-scatter",
        "The loader is never waited for",
        "Other ways",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpus", "12", "--shards", "0"], "12 GPUs are no whole number of nodes of 8"),
        (["--gpus", "0"], "num_gpus"),
        (["--hardware", "H2000"], "did you mean 'H200'?"),
        (["--storage", "0"], "--storage"),
        (["--gpus", "16", "--shards", "32"], "hsdp_shard_dim"),
    ],
)
def test_what_cannot_be_meant_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert distill(["simulate", str(folder / "run.yaml"), *arguments]) == 2
    assert said in capsys.readouterr().err
