"""What `check` says of memory before a run is what the run then takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from fastvideo_core.dispatch.memory_estimate import RunEstimate, estimate_run
from fastvideo_core.dispatch.runtime import DistillRuntime, build_runtime_from_config
from fastvideo_core.placing import shard
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.schema import encode_tensor, key_value_metadata, t2v_schema, write_part
from fastvideo_testing.runs import load_config, resolve_run
from fastvideo_wan.loading import load_transformer
from fastvideo_wan.tiny import write_tiny_pipeline
from tests.test_docs import ROOT, example

SIZE = {"num_height": 128, "num_width": 128, "num_frames": 9}
LORA = {"rank": 8, "targets": ["to_q", "to_v"]}
ROLES = {"finetune": ("student",), "dmd2": ("student", "teacher", "critic"), "consistency": ("student", "teacher")}
TOLERANCE = 0.1


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> Path:
    """Wide enough that its tensors, and not their names, make a checkpoint's size."""
    path = tmp_path_factory.mktemp("wan") / "wan"
    write_tiny_pipeline(path, num_layers=3, num_heads=4, head_dim=16, ffn_dim=256)
    return path


def run_of(wan: Path, data: Path, out: Path, method: str, **training: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"dmd2": {"generator_update_interval": 1, "dmd_denoising_steps": [1000, 500]}}
    settings["consistency"] = {"target": "average", "denoising_steps": [1000]}
    return {
        "recipe": {"family": "wan", "method": method},
        "roles": {role: {"path": str(wan), "trainable": role != "teacher"} for role in ROLES[method]},
        "training": {"output_dir": str(out), "data_path": str(data), "max_train_steps": 3, **training},
        "method_config": settings.get(method, {}),
        "callbacks": {"ema": {"decay": 0.9, "roles": ["student"]}},
    }


@pytest.fixture(scope="module")
def large_data(tmp_path_factory) -> Path:
    """Latents [16, 3, 16, 16] of videos of SIZE: 192 tokens."""
    out = tmp_path_factory.mktemp("latents")
    rows = []
    for number in range(4):
        row: dict[str, Any] = {"id": f"s{number}", "caption": f"clip {number}", "media_type": "video", "fps": 16.0}
        row |= {"file_name": f"{number}.mp4", "width": 128, "height": 128, "num_frames": 3, "duration_sec": 0.6}
        row |= encode_tensor("vae_latent", torch.randn(16, 3, 16, 16))
        rows.append(row | encode_tensor("text_embedding", torch.randn(8, 32)))
    write_part(out / "part.parquet", rows, t2v_schema(), key_value_metadata(normalised=False, settings={}))
    return out


def estimated(folder: Path, run: dict[str, Any]) -> RunEstimate:
    estimate = estimate_run(resolve_run(folder, run))
    assert estimate is not None
    return estimate


def built(folder: Path, run: dict[str, Any]) -> DistillRuntime:
    return build_runtime_from_config(load_config(folder, run), PluginRegistry())


class Profiled:
    """A dataloader that has torch's allocator watched through the second step: moments and averages exist then."""

    def __init__(self, dataloader: Any) -> None:
        self._dataloader = dataloader
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self._dataloader):
            if number == 1:
                self._profile.start()
            if number == 2:
                self._profile.stop()
            yield batch

    @property
    def peak(self) -> int:
        """The most bytes that the step had on top of what there was before."""
        results: Any = self._profile.profiler
        events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
        live = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        return peak


def held(runtime: DistillRuntime, role: str) -> dict[str, int]:
    """Bytes of a role's tensors of each kind, after a step."""
    handle = runtime.method.bundle[role]
    parameters = [parameter for _, parameter in handle.named_parameters()]
    moments = [
        value
        for optimizer in handle.optimizers.values()
        for state in optimizer.state.values()
        for value in state.values()
    ]
    shadows = runtime.callbacks.state_dict().get("ema", {}).get("shadow", {}).get(role, {})
    return {
        "weights": nbytes(parameters) + nbytes(b for m in handle.modules.values() for b in m.buffers()),
        "gradients": nbytes(p for p in parameters if p.requires_grad),
        "optimizer": nbytes(moments),
        "ema": nbytes(tensor for module in shadows.values() for tensor in module.values()),
    }


def nbytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def within(found: float, wanted: float, tolerance: float = TOLERANCE) -> bool:
    return abs(found - wanted) <= tolerance * wanted


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("method", ["dmd2", "consistency"])
def test_every_kind_of_every_role_and_the_checkpoint_have_the_estimated_size(
    tmp_path, wan, latent_data, precision, lora, method
):
    run = run_of(wan, latent_data, tmp_path / "run", method, mixed_precision=precision, **SIZE)
    if lora:
        run["roles"]["critic" if method == "dmd2" else "student"]["lora"] = LORA
    estimate = estimated(tmp_path, run)
    runtime = built(tmp_path, run)
    runtime.train()
    assert estimate.roles.keys() == {handle.name for handle in runtime.method.bundle}
    for role, of_role in estimate.roles.items():
        for kind, size in held(runtime, role).items():
            assert within(getattr(of_role, kind), size, 0.01), f"{role}, {kind}: {getattr(of_role, kind)} of {size}"
    size = folder_size(tmp_path / "run" / "checkpoint-000003")
    assert within(estimate.checkpoint, size), f"{estimate.checkpoint} of {size}"


@pytest.mark.parametrize(
    ("method", "kind", "precision"),
    [
        ("finetune", None, "no"),
        ("finetune", "full", "no"),
        ("finetune", "ops", "bf16"),
        ("dmd2", None, "no"),
        ("dmd2", "full", "bf16"),
    ],
)
def test_activations_and_the_peak_are_what_the_allocator_sees(tmp_path, wan, large_data, method, kind, precision):
    options = {"mixed_precision": precision, "enable_gradient_checkpointing_type": kind, **SIZE}
    run = run_of(wan, large_data, tmp_path / "run", method, **options)
    estimate = estimated(tmp_path, run)
    runtime = built(tmp_path, run)
    watched = Profiled(runtime.dataloader)
    replace(runtime, dataloader=watched).train()
    state = sum(role.state for role in estimate.roles.values())
    assert within(estimate.peak, state + watched.peak), f"{estimate.peak} of {state + watched.peak}"
    if precision == "no" and method == "finetune":
        assert within(estimate.peak - state, watched.peak), f"{estimate.peak - state} of {watched.peak}"


def test_shares_of_several_processes_replicas_and_offload(tmp_path, wan, latent_data):
    def of(**training: Any) -> RunEstimate:
        run = run_of(wan, latent_data, tmp_path / "run", "dmd2", **SIZE, **training)
        return estimated(tmp_path, run)

    one, eight = of(), of(num_gpus=8)
    replicas, offloaded = of(num_gpus=8, hsdp_replicate_dim=4), of(num_gpus=8, frozen_cpu_offload=True)
    for role in ROLES["dmd2"]:
        for kind in ("gradients", "optimizer"):  # weights have buffers beside them, which stay whole
            whole = getattr(one.roles[role], kind)
            assert getattr(eight.roles[role], kind) == pytest.approx(whole / 8, rel=0.15)  # as do tables of one row
            assert getattr(replicas.roles[role], kind) == pytest.approx(whole / 2, rel=0.05)
        assert eight.roles[role].weights < replicas.roles[role].weights < one.roles[role].weights
        assert eight.roles[role].activations == one.roles[role].activations
        assert eight.roles[role].gathered > 0 == one.roles[role].gathered
    away = offloaded.roles["teacher"]
    assert offloaded.host == away.offloaded
    buffers = away.weights - away.offloaded  # which stay where the network computes
    assert 0 < buffers < away.offloaded
    assert eight.peak - offloaded.peak == offloaded.host
    assert eight.peak < replicas.peak < one.peak
    assert eight.checkpoint == pytest.approx(one.checkpoint, rel=0.3)


def test_who_shares_tokens_holds_a_share_of_what_goes_by_token(tmp_path, wan, large_data):
    """192 tokens, and 512 of the text, whose keys and values each process has."""
    run = run_of(wan, large_data, tmp_path / "whole", "finetune", num_gpus=4)
    whole = estimated(tmp_path, run).roles["student"]
    run["training"] |= {"sequence_parallel": 4, "output_dir": str(tmp_path / "shares")}
    shares = estimated(tmp_path, run).roles["student"]
    assert (shares.weights, shares.gathered) == (whole.weights, whole.gathered)
    assert whole.evaluation is not None
    assert shares.evaluation is not None
    assert whole.evaluation.held / 4 < shares.evaluation.held < whole.evaluation.held / 1.5


def test_blocks_and_inputs_that_wait_on_the_host_are_what_a_run_puts_there(tmp_path, wan, latent_data, monkeypatch):
    def of(**training: Any) -> dict[str, Any]:
        run = run_of(wan, latent_data, tmp_path / "run", "finetune", **SIZE, **training)
        run["roles"]["student"]["lora"] = LORA
        return run

    plain, away = estimated(tmp_path, of()), estimated(tmp_path, of(offload_blocks=3))
    assert plain.peak - away.peak == away.host - away.roles["student"].gathered == away.host / 3 > 0
    inputs = of(enable_gradient_checkpointing_type="full", offload_activations=True)
    less, kept = estimated(tmp_path, inputs), estimated(tmp_path, of(enable_gradient_checkpointing_type="full"))
    packed: list[int] = []
    counting = saved_tensors_hooks(lambda one: packed.append(one.nbytes) or one.clone(), lambda one: one)
    monkeypatch.setattr(shard, "save_on_cpu", lambda pin_memory: counting)
    built(tmp_path, inputs).train()
    assert sum(packed) == 3 * less.host > 0  # of three steps
    assert 0 < kept.peak - less.peak <= less.host


def test_a_role_of_two_networks_has_both_s_weights_and_moments_and_one_s_gradients_and_activations(
    tmp_path, latent_data
):
    paths = {variant: tmp_path / variant for variant in ("t2v", "a14b")}
    for variant, path in paths.items():
        write_tiny_pipeline(path, num_layers=3, num_heads=4, head_dim=16, ffn_dim=256, variant=variant)
    runs = {key: run_of(path, latent_data, tmp_path / "run", "finetune", **SIZE) for key, path in paths.items()}
    one, two = (estimated(tmp_path, run).roles["student"] for run in runs.values())
    assert (two.weights, two.optimizer, two.ema) == (2 * one.weights, 2 * one.optimizer, 2 * one.ema)
    assert (two.gradients, two.activations) == (one.gradients, one.activations)
    chosen = runs["a14b"]
    chosen["roles"]["student"]["train_modules"] = ["transformer_2"]
    whole = estimated(tmp_path, chosen)
    low = whole.roles["student"]
    assert (low.weights, low.optimizer, low.gradients) == (two.weights, one.optimizer, one.gradients)
    chosen["training"]["frozen_cpu_offload"] = True
    away = estimated(tmp_path, chosen)
    assert away.host == low.gradients  # as large as the other network
    assert whole.peak - away.peak == away.host - away.roles["student"].gathered > 0
    del chosen["training"]["frozen_cpu_offload"]
    runtime = built(tmp_path, chosen)
    runtime.train()
    held_now = held(runtime, "student")
    for kind in ("weights", "gradients", "optimizer"):
        assert within(getattr(low, kind), held_now[kind], 0.01), kind
    size = folder_size(tmp_path / "run" / "checkpoint-000003")
    assert within(whole.checkpoint, size)


@pytest.mark.slow
def test_the_readme_shows_what_check_says(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import memory_table

    assert example("README.md", "memory").rstrip("\n") == memory_table.tables(tmp_path)


def test_weights_that_are_gathered_in_bfloat16_are_not_copied_by_autocast(tmp_path, wan, latent_data):
    """On one process autocast keeps its copies of all blocks until the forward ends; sharded weights arrive in bfloat16."""
    options = {"mixed_precision": "bf16", "enable_gradient_checkpointing_type": "full"}
    found = {}
    for processes in (1, 2):
        run = run_of(wan, latent_data, tmp_path / str(processes), "finetune", num_gpus=processes, **options)
        found[processes] = estimated(tmp_path, run).roles["student"]
    network = load_transformer(str(wan), dtype=torch.float32, device=torch.device("cpu"))
    linear = [part.weight for part in network.blocks.modules() if isinstance(part, torch.nn.Linear)]
    copies = 2 * sum(weight.numel() for weight in linear)
    assert found[1].evaluation.forward - found[2].evaluation.forward > 0.5 * copies
