"""A step never makes the host wait for the device: nothing asks a tensor for its value between logs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastvideo_core.testing.runs import build_run

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


@pytest.mark.parametrize("method", ["finetune", "dmd2"])
def test_a_step_of_wan_reads_no_tensor_s_value_but_the_exit_step_s(tmp_path, tiny_wan, latent_data, method):
    names = {"finetune": ["student"], "dmd2": ["student", "teacher", "critic"]}[method]
    run = {
        "recipe": {"family": "wan", "method": method},
        "roles": {name: {"path": str(tiny_wan), "trainable": name != "teacher"} for name in names},
        "training": {"output_dir": str(tmp_path / "out"), "data_path": str(latent_data), "max_train_steps": 5},
        "method_config": {} if method == "finetune" else {"rollout_mode": "data_latent"},
    }
    runtime = build_run(tmp_path, run)
    runtime.method.on_train_start()
    batch = next(iter(runtime.dataloader))
    with CountWaits() as waits:
        result = runtime.method.single_train_step(batch, 5)
        for loss_map, outputs, _ in [result] if isinstance(result, tuple) else result:
            runtime.method.backward(loss_map, outputs)
    # the exit step is drawn on the CPU, where its value costs no waiting
    assert waits.seen == ({} if method == "finetune" else {"_local_scalar_dense": 1})


def test_the_counter_counts():
    with CountWaits() as waits:
        torch.ones(()).item()
    assert waits.seen == {"_local_scalar_dense": 1}
