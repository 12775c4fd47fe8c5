"""A teacher's networks with the adapters of student and critic on them train as three networks do, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import WanPipeline, WanTransformer3DModel
from torch import Tensor

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.cli.functions import build_runtime
from fastvideo_core.cli.main import main
from fastvideo_core.config.run import RoleConfig
from fastvideo_core.contracts.family import open_family
from fastvideo_core.contracts.roles import RoleHandle, is_lora_parameter
from fastvideo_core.dispatch.examine import examine
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.memory_estimate import estimate_run
from fastvideo_core.dispatch.role_weights import load_role, role_source
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.errors import ContractError, UserError
from fastvideo_core.registry import PluginRegistry
from fastvideo_tools.commands.init import run_yaml
from tests.conftest import write_run
from tests.methods import sections

LORA = {"rank": 2, "alpha": 3}
ADVERSARIAL = {"adversarial_weight": 0.1, "discriminator_weight": 0.1, "r1_weight": 0.1}


def run_of(
    wan: Path, data: Path, out: Path, *, share: bool, name: str = "dmd2", method: Any = (), **training: Any
) -> dict[str, Any]:
    given = {"seed": 1, "data_path": str(data), "output_dir": str(out), "max_train_steps": 3, "learning_rate": 0.01}
    run = {"recipe": {"family": "wan", "method": name}, **sections(name, lambda _: str(wan), **dict(method))}
    for role in run["roles"].values():
        if role["trainable"]:
            role |= {"lora": LORA} | ({"share": "teacher"} if share else {})
    return {**run, "training": given | training}


def started(folder: Path, run: dict[str, Any]) -> DistillRuntime:
    folder.mkdir(parents=True, exist_ok=True)
    runtime = build_runtime(write_run(folder / "run.yaml", run))
    for parameter in runtime.method.parameters():
        # at addresses alike, on which rounding depends: not where a file has it
        parameter.data = parameter.data.clone()
    return runtime


def trained(folder: Path, run: dict[str, Any]) -> DistillRuntime:
    runtime = started(folder, run)
    runtime.train()
    return runtime


def stored(run: dict[str, Any]) -> dict[str, Tensor]:
    """Student's and critic's adapters in the checkpoint of its last step."""
    out = Path(run["training"]["output_dir"])
    return {
        f"{role}.{name}": value
        for role in describe(out).roles
        if role != "discriminator"
        for name, value in read_role_weights(out, role, ema=False)["transformer"].items()
    }


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "full": ({"enable_gradient_checkpointing_type": "full"}, {}),
    "ops": ({"enable_gradient_checkpointing_type": "ops"}, {}),
    "block_skip": ({"enable_gradient_checkpointing_type": "block_skip"}, {}),
    "muon": ({"enable_gradient_checkpointing_type": "full", "optimizer": "muon"}, {}),
    "consistency": ({"enable_gradient_checkpointing_type": "full"}, {"name": "consistency"}),
    "rcm": ({"enable_gradient_checkpointing_type": "ops", "max_train_steps": 5}, {"name": "rcm"}),
    "adversarial": ({"enable_gradient_checkpointing_type": "full"}, {"method": ADVERSARIAL}),
}


@pytest.fixture(scope="module")
def of_three(tmp_path_factory, tiny_wan, latent_data) -> Callable[[str], dict[str, Tensor]]:
    """What the run of three networks stored, which recomputes nothing: one for all kinds of recomputing."""
    made: dict[str, dict[str, Tensor]] = {}

    def make(case: str) -> dict[str, Tensor]:
        training, options = CASES[case]
        training = {key: value for key, value in training.items() if key != "enable_gradient_checkpointing_type"}
        if (key := repr((training, options))) not in made:
            out = tmp_path_factory.mktemp("three")
            run = run_of(tiny_wan, latent_data, out / "run", share=False, **options, **training)
            trained(out, run)
            made[key] = stored(run)
        return made[key]

    return make


@pytest.mark.parametrize("case", CASES)
def test_a_shared_run_is_the_run_of_three_networks(tmp_path, tiny_wan, latent_data, of_three, case):
    training, options = CASES[case]
    run = run_of(tiny_wan, latent_data, tmp_path / "run", share=True, **options, **training)
    trained(tmp_path, run)
    one, other = of_three(case), stored(run)
    assert one.keys() == other.keys()
    assert all(is_lora_parameter(name) for name in one)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert all(one[name].abs().max() > 0 for name in one)


def test_a_shared_student_is_validated_with_its_own_adapters(tmp_path, tiny_wan, latent_data):
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    asked = {"log_validation": True, "validation_steps": 3, "validation_dataset_file": str(tmp_path / "prompts.txt")}
    sheets = []
    for share in (False, True):
        out = tmp_path / str(share)
        run = run_of(
            tiny_wan, latent_data, out / "run", share=share, **asked, num_height=32, num_width=32, num_frames=9
        )
        run["callbacks"] = {"ema": {"decay": 0.5}}
        trained(out, run)
        sheets.append([path.read_bytes() for path in sorted((out / "run" / "validation").rglob("*.png"))])
    assert sheets[0]
    assert sheets[0] == sheets[1]
    assert len(set(sheets[0])) == len(sheets[0])  # before training, when it is the bare base, and after


def test_check_counts_shared_weights_once(tmp_path, tiny_wan, latent_data):
    estimates = {}
    for share in (False, True):
        run = run_of(tiny_wan, latent_data, tmp_path / "run", share=share)
        cfg = load_run_config(write_run(tmp_path / "run.yaml", run))
        resolved, _ = examine(cfg, PluginRegistry(), starts=False)
        estimates[share] = estimate_run(resolved).roles
    apart, shared = estimates[False], estimates[True]
    base = shared["teacher"].weights
    assert apart["teacher"] == shared["teacher"]
    for role in ("student", "critic"):
        assert 0 < shared[role].weights < base
        buffers = apart[role].weights - shared[role].weights - base
        assert buffers == 0
        assert (shared[role].optimizer, shared[role].gradients) == (apart[role].optimizer, apart[role].gradients)
        assert shared[role].checkpoint == apart[role].checkpoint
        assert shared[role].evaluation == apart[role].evaluation


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_wan, latent_data) -> Trained:
    """Four steps of a shared run that averages its student, with a checkpoint after two."""
    out = tmp_path_factory.mktemp("shared")
    options = {"enable_gradient_checkpointing_type": "full", "training_state_checkpointing_steps": 2}
    run = run_of(tiny_wan, latent_data, out / "run", share=True, max_train_steps=4, **options)
    run["callbacks"] = {"ema": {"decay": 0.5}}
    runtime = started(out, run)
    before = {name: one.detach().clone() for name, one in runtime.method.bundle["teacher"].named_parameters()}
    runtime.train()
    return Trained(run, runtime, before)


@dataclass(frozen=True)
class Trained:
    run: dict[str, Any]
    runtime: DistillRuntime
    before: dict[str, Tensor]


def test_the_base_has_one_storage_a_weight_and_stays_to_the_bit(shared):
    bundle = shared.runtime.method.bundle
    base, student, critic = (dict(bundle[role].named_parameters()) for role in ("teacher", "student", "critic"))
    assert base.keys() == shared.before.keys()
    assert all(torch.equal(base[name], value) for name, value in shared.before.items())
    assert all(is_lora_parameter(name) for name in (*student, *critic))
    networks = [bundle[role].modules["transformer"] for role in bundle.roles]
    every = [p for network in networks for p in network.parameters()]
    own = [*base.values(), *student.values(), *critic.values()]
    assert {p.untyped_storage().data_ptr() for p in every} == {p.untyped_storage().data_ptr() for p in own}
    assert len({id(p) for p in every}) == len(own)


def test_each_role_trains_its_own_adapters_alone_in_eval_mode(shared):
    for role in ("student", "critic"):
        handle = shared.runtime.method.bundle[role]
        (optimizer,) = handle.optimizers.values()
        own = [id(p) for _, p in handle.named_parameters()]
        assert [id(p) for group in optimizer.param_groups for p in group["params"]] == own
        assert not any(part.training for module in handle.modules.values() for part in module.modules())


def test_a_call_for_nobody_is_an_error(shared):
    network = shared.runtime.method.bundle["student"].modules["transformer"]
    with pytest.raises(ContractError, match="is called, and nothing says for whom"):
        network(torch.zeros(1))


def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path, shared):
    run = copy.deepcopy(shared.run)
    run["training"] |= {"output_dir": str(tmp_path / "run"), "max_train_steps": 2}
    trained(tmp_path, run)
    run["training"] |= {"max_train_steps": 4, "resume_from_checkpoint": "latest"}
    trained(tmp_path, run)
    one, other = stored(shared.run), stored(run)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    averages = [read_role_weights(r["training"]["output_dir"], "student", ema=True) for r in (shared.run, run)]
    assert all(torch.equal(averages[0]["transformer"][key], value) for key, value in averages[1]["transformer"].items())


def test_a_shared_student_is_read_from_its_checkpoint_as_one_with_a_network_of_its_own(shared, tiny_wan):
    out = shared.run["training"]["output_dir"]
    assert describe(out).ema_roles == ("student",)
    source = role_source("student", RoleConfig(path=out, trainable=False, weights="raw"))
    network = load_wan(tiny_wan)
    load_role(RoleHandle("student", {"transformer": network}), source, open_family("wan", PluginRegistry()))
    state, adapters = load_wan(tiny_wan).state_dict(), read_role_weights(out, "student", ema=False)["transformer"]
    changed = 0
    for name, value in network.state_dict().items():
        layer = name.removesuffix(".weight")
        if (down := adapters.get(f"{layer}.lora_A.default.weight")) is not None:
            expected = state[name] + 1.5 * adapters[f"{layer}.lora_B.default.weight"] @ down
            changed += not torch.equal(value, state[name])
        else:
            expected = state[name]
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    assert changed == len(adapters) // 2


def test_sample_and_export_take_the_adapters_of_the_asked_role(tmp_path, shared, tiny_wan):
    """Of student and critic; a video of the checkpoint is that of the merged pipeline, and none of the bare base."""
    out = shared.run["training"]["output_dir"]
    base, states = load_wan(tiny_wan).state_dict(), {}
    for role in ("student", "critic"):
        for form in ("merged", "separate"):
            assert main(["export", out, str(tmp_path / role / form), "--role", role, "--lora", form]) == 0
        states[role] = load_wan(tmp_path / role / "merged").state_dict()
        adapters = read_role_weights(out, role, ema=role == "student")["transformer"]
        for name, value in states[role].items():
            layer, expected = name.removesuffix(".weight"), base[name]
            if (down := adapters.get(f"{layer}.lora_A.default.weight")) is not None:
                expected = expected + 1.5 * adapters[f"{layer}.lora_B.default.weight"] @ down
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
        pipeline = WanPipeline.from_pretrained(tiny_wan)
        pipeline.load_lora_weights(tmp_path / role / "separate")
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        for name, value in pipeline.transformer.state_dict().items():
            torch.testing.assert_close(value, states[role][name], atol=1e-6, rtol=1e-6)
    assert any(not torch.equal(states["student"][name], value) for name, value in states["critic"].items())
    videos = []
    for model in (out, tmp_path / "student" / "merged", tiny_wan):
        folder = tmp_path / f"videos{len(videos)}"
        size = ["--height", "32", "--width", "32", "--num-frames", "5", "--steps", "2", "--guidance-scale", "1"]
        assert main(["sample", str(model), "--prompt", "a red ball", *size, "--out", str(folder)]) == 0
        videos.append((folder / "00.mp4").read_bytes())
    assert videos[0] == videos[1] != videos[2]


def load_wan(path: Path) -> WanTransformer3DModel:
    return WanTransformer3DModel.from_pretrained(path, subfolder="transformer")


@pytest.mark.parametrize(
    ("role", "changed", "found"),
    [
        ("student", {"path": "org/other"}, r"found 'org/other' \(text\), and .* for teacher, whose networks"),
        ("student", {"merge_lora": [{"path": "x.safetensors"}]}, "and null for teacher, whose networks it shares"),
        ("student", {"base_precision": "fp8"}, "found 'fp8' .*, and null for teacher, whose networks it shares"),
        ("student", {"lora": None}, "found share: teacher without adapters"),
        (
            "teacher",
            {"trainable": True},
            "found 'teacher', which is no frozen role of this run with networks of its own",
        ),
        ("critic", {"share": "student"}, r"found 'student', which is no frozen role[^\n]*\n    allowed: teacher\n"),
        ("student", {"share": "nobody"}, "found 'nobody', which is no frozen role"),
        ("student", {"share": "student"}, "found 'student', which is no frozen role"),
    ],
)
def test_what_cannot_be_shared_is_said(tmp_path, tiny_wan, latent_data, role, changed, found):
    run = run_of(tiny_wan, latent_data, tmp_path / "run", share=True)
    run["roles"][role] = {**run["roles"][role], **changed}
    with pytest.raises(UserError, match=found):
        load_run_config(write_run(tmp_path / "run.yaml", run))


def test_init_writes_the_roles_of_the_page_on_runs():
    page = (Path(__file__).parents[1] / "docs/runs.md").read_text(encoding="utf-8").partition("## One base")[2]
    model = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
    written = run_yaml("wan", "dmd2", PluginRegistry(), model, None, one_base=True)
    shown = yaml.safe_load(page.partition("```yaml")[2].partition("```")[0])
    assert yaml.safe_load(written)["roles"] == shown["roles"]
