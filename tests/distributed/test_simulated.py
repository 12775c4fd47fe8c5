"""What is simulated of a run is what its processes then send and hold, and what a formula says of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastvideo_testing.runs import resolve_run
from fastvideo_tools.simulate import iterate
from fastvideo_tools.simulate.meter import Cost
from fastvideo_tools.simulate.simulation import Simulation, simulate
from fastvideo_wan.tiny import write_tiny_pipeline
from tests.distributed.ranks import run_workers
from tests.distributed.test_wan import run_of

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
SHAPES = {2: (1, 2), 4: (2, 2)}
"""(replicas, shards) by processes."""
SHARED = "finetune, a sample on two"
SIZE = (2, 4, 4)
TOKENS = 8
"""Of latents of that size, in patches of 1 x 2 x 2."""


def run(folder: Path, name: str, processes: int) -> dict[str, Any]:
    method = name.partition(",")[0]
    whole = json.loads((folder / "run.json").read_text())[method]
    replicas, shards = SHAPES[processes]
    axes = {"num_gpus": processes, "hsdp_replicate_dim": replicas, "hsdp_shard_dim": shards}
    own = {"output_dir": str(folder / f"{name}-{processes}"), "max_train_steps": 2 if method == "dmd2" else 1, **axes}
    own |= {"sequence_parallel": 2} if name == SHARED else {}
    return {**whole, "training": {**whole["training"], **own}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("simulated")
    write_tiny_pipeline(path / "wan", num_layers=1, text_layers=1)
    runs = {}
    for method in ("finetune", "dmd2"):
        (path / method).mkdir()
        runs[method] = run_of(path / method, "t2v", method, size=SIZE)
        for role in runs[method]["roles"].values():
            role["path"] = str(path / "wan")
        options = {"mixed_precision": "bf16", "enable_gradient_checkpointing_type": "full"}
        runs[method]["training"] |= options
    runs["dmd2"]["method_config"] |= {"generator_update_interval": 2, "dmd_denoising_steps": [1000, 500]}
    (path / "run.json").write_text(json.dumps(runs))
    return path


def sent(found: Simulation) -> dict[str, list[float]]:
    """[number, bytes] over an iteration of each kind, by collective and ranks."""
    total = Cost()
    for kind in found.kinds:
        for cost in kind.parts.values():
            total.add(cost)
    return {f"{key.name} of {list(key.ranks)}": entry for key, entry in total.sent.items()}


@pytest.mark.parametrize("processes", SHAPES)
def test_bytes_and_collectives_are_those_of_processes(
    folder: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iterate, "DRAWS", 2)
    out = folder / f"out-{processes}"
    out.mkdir()
    runs = {name: run(folder, name, processes) for name in ("finetune", "dmd2", *([SHARED] if processes == 2 else []))}
    simulated = {name: simulate(resolve_run(out, one)) for name, one in runs.items()}
    run_workers(processes, "metered", out, runs=runs)
    for name, found in simulated.items():
        real = json.loads((out / f"{name}.json").read_text())
        assert sent(found) == real["sent"]
        assert {name: [h.parameters, h.optimizer] for name, h in found.roles.items()} == real["held"]
        if name != "dmd2":
            assert_formula(found)
        if name == SHARED:
            assert_tokens(found)


def assert_formula(found: Simulation) -> None:
    """All-gathers: what a block computes in bfloat16 in 2 bytes, the rest in 4, forward and backward; gradients in 4 bytes,
    reduced to shards once, and their shards added up over replicas. FSDP pads rows to a multiple of the shards."""
    outline = found.run.outline("student")
    assert outline is not None
    network: Any = outline.handle.modules["transformer"]
    half = {
        id(p) for block in network.blocks for m in block.modules() if isinstance(m, nn.Linear) for p in m.parameters()
    }

    def padded(p: torch.Tensor) -> int:
        rows = p.shape[0] if p.ndim else 1
        return -(-rows // found.shards) * found.shards * (p.numel() // rows)

    weights = sum(padded(p) * (2 if id(p) in half else 4) for p in network.parameters())
    gradients = sum(padded(p) * 4 for p in network.parameters())
    totals: dict[str, float] = {}
    for name, (_, size) in sent(found).items():
        kind = name.partition(" of [")[0]
        totals[kind] = totals.get(kind, 0) + size
    assert totals["all-gather"] == 2 * weights
    assert totals["reduce-scatter"] == gradients
    norms = 4 * len(list(network.parameters()))  # of each gradient, and two flags in 8 bytes
    added = gradients / found.shards if found.replicas > 1 else 0
    assert totals["all-reduce"] == added + norms + 8


def assert_tokens(found: Simulation) -> None:
    """Ulysses: queries, keys, values and the result of a block's self-attention in bfloat16, forward, again to recompute it, and
    back. The output is gathered once, and its whole gradient exchanged."""
    outline = found.run.outline("student")
    assert outline is not None
    network: Any = outline.handle.modules["transformer"].config
    width, blocks = network["num_attention_heads"] * network["attention_head_dim"], network["num_layers"]
    share, output = TOKENS // 2 * width * 2, TOKENS * network["out_channels"] * math.prod(network["patch_size"]) * 2
    counted = {name: entry for name, entry in sent(found).items() if "tokens" in name}
    assert counted == {
        "all-to-all of tokens of [0, 1]": [12 * blocks + 1, 12 * blocks * share + output],
        "all-gather of tokens of [0, 1]": [1, output],
    }
