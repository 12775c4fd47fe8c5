"""Between logs a step makes the host wait for the device once, before its update: nothing else asks a tensor for its value."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastvideo_core.training.updates import clip_gradients
from fastvideo_testing.runs import build_run, toy_family
from tests.conftest import trajectory_data
from tests.methods import ALL

WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select"}


class CountWaits(TorchDispatchMode):
    """Counts operators whose result the host must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


TERM = {"adversarial_weight": 0.1, "r1_weight": 1.0}
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "finetune": ("finetune", {}, "ode"),
    "dmd2 on data": ("dmd2", {"rollout_mode": "data_latent"}, "ode"),
    "dmd2 simulate ode": ("dmd2", {}, "ode"),
    "dmd2 simulate sde": ("dmd2", {"warp_denoising_step": True}, "sde"),
    "dmd2 with the term": ("dmd2", TERM, "sde"),
    "kd": ("kd", {"denoising_steps": [1000, 500]}, "ode"),
    "kd velocity": ("kd", {"denoising_steps": [1000, 500], "target": "velocity"}, "ode"),
    "consistency": ("consistency", {}, "sde"),
    "consistency with an average": ("consistency", {"solver": "heun", "target": "average"}, "sde"),
    "rcm": ("rcm", {"tangent_warmup_steps": 0}, "sde"),
    "rcm without matching": ("rcm", {"dmd_weight": 0}, "sde"),
    "dmd2 with the term on the teacher": ("dmd2", {**TERM, "adversarial_features": "teacher"}, "ode"),
}


def as_phases(result: Any) -> Any:
    return [result] if isinstance(result, tuple) else result


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_wan_reads_no_tensor_s_value_but_the_exit_step_s(tmp_path, tiny_wan, latent_data, case):
    """From the batch to the optimizers' step, clipping included."""
    method, options, sampler_kind = CASES[case]
    names = [name for name in ALL[method].roles if name != "critic" or options.get("dmd_weight") != 0]
    data = trajectory_data(tmp_path / "trajectories.parquet", [1000.0, 750.0, 0.0]) if method == "kd" else latent_data
    run = {
        "recipe": {"family": "wan", "method": method},
        "roles": {name: {"path": str(tiny_wan), "trainable": name != "teacher"} for name in names},
        "training": {
            "output_dir": str(tmp_path / "out"),
            "data_path": str(data),
            "max_train_steps": 5,
            "max_grad_norm": 0.01,
            "num_height": 32,
            "num_width": 32,
            "num_latent_t": 3,
        },
        "pipeline_config": {"sampler_kind": sampler_kind, "flow_shift": 3.0},
        "method_config": options,
    }
    runtime = build_run(tmp_path, run)
    trained: Any = runtime.method
    trained.on_train_start()
    batch = next(iter(runtime.dataloader))
    if method == "rcm":
        list(
            as_phases(trained.single_train_step(batch, 10))
        )  # whose consistency term looks once at what the family predicts
    if method in ("dmd2", "rcm"):
        trained.exit_index = lambda iteration: int(torch.randint(3, 4, ()))  # the longest rollout; read like any other
    with CountWaits() as waits:
        for loss_map, outputs, _ in as_phases(trained.single_train_step(batch, 5)):
            trained.backward(loss_map, outputs)
        norms = [clip_gradients(optimizer, trained.max_grad_norm(optimizer)) for optimizer in trained.get_optimizers(5)]
    assert all(norm is not None and norm.ndim == 0 for norm in norms)
    # the exit step of a rollout is drawn on the CPU, where its value costs no waiting
    drawn = {"dmd2": 1, "rcm": 5}.get(
        method, 0
    )  # of rcm the exit, three times on the way, and whether the last is trained
    if options.get("rollout_mode") == "data_latent" or options.get("dmd_weight") == 0:
        drawn = 0
    assert waits.seen == ({"_local_scalar_dense": drawn} if drawn else {})


@pytest.mark.parametrize("method", ["finetune", "dmd2"])
def test_an_optimizer_s_step_reads_nothing_but_its_own_counters(tmp_path, method):
    """AdamW keeps its counters on the host where weights are on the CPU; nothing else of a step is read."""
    run = {
        "recipe": {"family": "toy", "method": method},
        "roles": {
            name: {"path": f"org/{name}", "trainable": name != "teacher"}
            for name in {"finetune": ["student"], "dmd2": ["student", "teacher", "critic"]}[method]
        },
        "training": {"output_dir": str(tmp_path / "out"), "max_train_steps": 5, "lr_scheduler": "cosine"},
    }
    with toy_family():
        trained: Any = build_run(tmp_path, run).method
    for parameter in trained.student.trainable_parameters():
        parameter.grad = torch.ones_like(parameter)
    count = len(trained.student.trainable_parameters())
    with CountWaits() as waits:
        trained.optimizers_schedulers_step(5)
    assert waits.seen["_local_scalar_dense"] <= count
    assert set(waits.seen) <= {"_local_scalar_dense"}


def test_the_counter_counts():
    with CountWaits() as waits:
        torch.ones(()).item()
    assert waits.seen == {"_local_scalar_dense": 1}
