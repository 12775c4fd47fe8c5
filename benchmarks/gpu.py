"""What training costs on one GPU: seconds per iteration, peak memory and model-FLOPs utilisation of finetune and dmd2, next
to a bare torch loop of the same network evaluations; then whether everything that needs a GPU works.

    python benchmarks/gpu.py              # Wan 1.3B geometry with random weights; under 10 minutes on one H100
    python benchmarks/gpu.py --tiny       # a tiny Wan, on the CPU too

The framework's side is the whole of config, dispatch and trainer. The bare loop makes the evaluations that the run was
seen to make (by role, samples and whether a graph is needed), and AdamW's steps, with diffusers' network, autocast and
checkpointing alone. FLOPs are those of the evaluations, 3 times a forward where there is a graph; what checkpointing
computes again does not count.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from dmd2_step import CallCounter, Evaluation
from gpu_runs import CPU, LARGE, ROLES, SMALL, Runs, Variant, build, foretold_peak, network_inputs, train
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A10": 125.0,
}
"""Dense bfloat16 TFLOP/s by a part of the device's name, the more particular names first."""

MEASURED = ("finetune", "dmd2")
"""Methods whose evaluations the bare loop can make; the others are among the checks."""

WARM_UP = 2
BLANK = "n/a"


@dataclass(frozen=True)
class Iteration:
    """One iteration of a run: what it evaluated, and how long it took."""

    evaluations: Counter[Evaluation]
    seconds: float

    @property
    def trained(self) -> frozenset[str]:
        """The roles that had a graph, and so an update."""
        return frozenset(evaluation.role for evaluation in self.evaluations if evaluation.graph)


@dataclass(frozen=True)
class Cost:
    """What a loop took: its iterations, the most memory that it held on the GPU and what was foretold (bytes; None: unknown)."""

    iterations: list[Iteration]
    peak: int | None
    foretold: int | None = None


# --- the framework ----------------------------------------------------------------------------------------------------


class Timed:
    """A dataloader that times what happens between two batches: asking for one is where an iteration begins."""

    def __init__(self, dataloader: Any, counter: CallCounter, iterations: int) -> None:
        self._dataloader, self._counter, self._count = dataloader, counter, iterations
        self.iterations: list[Iteration] = []

    def __iter__(self) -> Iterator[Any]:
        batch = next(iter(self._dataloader))
        started = 0.0
        for number in range(WARM_UP + self._count + 1):
            synchronize()
            now = time.perf_counter()
            evaluations = self._counter.take()
            if number > WARM_UP:
                self.iterations.append(Iteration(evaluations, now - started))
            if number == WARM_UP:
                reset_peak()
            synchronize()
            started = time.perf_counter()
            yield batch


def framework(runs: Runs, method: str, variant: Variant) -> Cost:
    """The run's iterations, through config, dispatch and trainer."""
    steps = WARM_UP + variant.iterations + 1
    config = runs.write(method, variant, max_train_steps=steps, logging_steps=steps)
    foretold = foretold_peak(config)
    runtime = build(config)
    networks = {role: runtime.method.bundle[role].modules["transformer"] for role in ROLES[method]}
    timed = Timed(runtime.dataloader, CallCounter(networks), variant.iterations)
    train(replace(runtime, dataloader=timed), saving=False)
    return Cost(timed.iterations, peak_memory(), foretold)


# --- the bare loop ----------------------------------------------------------------------------------------------------


def bare(runs: Runs, variant: Variant, seen: list[Iteration]) -> Cost:
    """The same evaluations with torch and diffusers alone."""
    roles = {evaluation.role for iteration in seen for evaluation in iteration.evaluations}
    trained = frozenset().union(*(iteration.trained for iteration in seen))
    networks = {role: bare_network(runs.pipeline(variant.sizes), variant, trained=role in trained) for role in roles}
    optimizers = {
        role: torch.optim.AdamW(networks[role].parameters(), 1e-5, fused=on_gpu() or None) for role in trained
    }
    inputs = {samples: network_inputs(variant, samples, device()) for samples in (1, 2)}
    found = []
    for number, iteration in enumerate([*seen[:WARM_UP], *seen]):
        if number == WARM_UP:
            reset_peak()
        synchronize()
        started = time.perf_counter()
        for evaluation, times in iteration.evaluations.items():
            for _ in range(times):
                evaluate(networks[evaluation.role], inputs[evaluation.samples], graph=evaluation.graph)
        for role in iteration.trained:
            optimizers[role].step()
            optimizers[role].zero_grad(set_to_none=True)
        synchronize()
        found.append(replace(iteration, seconds=time.perf_counter() - started))
    return Cost(found[WARM_UP:], peak_memory())


def bare_network(pipeline: Path, variant: Variant, *, trained: bool) -> Any:
    dtype = torch.float32 if trained else torch.bfloat16
    network = WanTransformer3DModel.from_pretrained(pipeline, subfolder="transformer", torch_dtype=dtype)
    if trained and variant.checkpointing is not None:
        network.enable_gradient_checkpointing()
    return network.to(device()).train(trained).requires_grad_(trained)


def evaluate(network: Any, inputs: dict[str, torch.Tensor], *, graph: bool) -> None:
    dtype = network.dtype
    given = {name: value if name == "timestep" else value.to(dtype) for name, value in inputs.items()}
    autocast = torch.autocast(device().type, torch.bfloat16, enabled=dtype == torch.float32)
    with torch.set_grad_enabled(graph), autocast:
        out = network(**given, return_dict=False)[0]
    if graph:
        out.backward(torch.ones_like(out))


# --- FLOPs ------------------------------------------------------------------------------------------------------------


def forward_flops(pipeline: Path, variant: Variant) -> int:
    """Of one sample through the network, counted on the meta device: nothing is computed."""
    config = WanTransformer3DModel.load_config(pipeline, subfolder="transformer")
    with torch.device("meta"):
        network: nn.Module = WanTransformer3DModel.from_config(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(**network_inputs(variant, 1, "meta"), return_dict=False)
    return counter.get_total_flops()


def flops_of(evaluations: Counter[Evaluation], forward: int) -> int:
    """Of all evaluations; a backward pass is two forwards."""
    return sum(times * one.samples * forward * (3 if one.graph else 1) for one, times in evaluations.items())


# --- the device -------------------------------------------------------------------------------------------------------


def on_gpu() -> bool:
    return torch.cuda.is_available()


def device() -> torch.device:
    return torch.device("cuda" if on_gpu() else "cpu")


def device_name() -> str:
    return torch.cuda.get_device_name() if on_gpu() else "CPU"


def synchronize() -> None:
    if on_gpu():
        torch.cuda.synchronize()


def reset_peak() -> None:
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int | None:
    return torch.cuda.max_memory_allocated() if on_gpu() else None


def free_memory() -> None:
    gc.collect()
    if on_gpu():
        torch.cuda.empty_cache()


def known_peak(name: str) -> float | None:
    return next((peak for part, peak in PEAKS.items() if all(word in name for word in part.split())), None)


# --- the table --------------------------------------------------------------------------------------------------------

HEADER = (
    "| variant | method | iteration | by | s/iteration | peak GiB | `check` GiB | TFLOP | MFU |\n"
    "|---|---|---|---|---:|---:|---:|---:|---:|"
)


def rows(variant: Variant, method: str, by: str, cost: Cost, forward: int, peak_tflops: float | None) -> list[str]:
    """A row for every kind of iteration: which roles were updated."""
    table = []
    for trained in sorted({iteration.trained for iteration in cost.iterations}, key=len, reverse=True):
        own = [iteration for iteration in cost.iterations if iteration.trained == trained]
        seconds = sum(iteration.seconds for iteration in own) / len(own)
        tflop = sum(flops_of(iteration.evaluations, forward) for iteration in own) / len(own) / 1e12
        used = BLANK if peak_tflops is None else f"{tflop / seconds / peak_tflops:.1%}"
        memory, foretold = (BLANK if size is None else f"{size / 2**30:.1f}" for size in (cost.peak, cost.foretold))
        kind = " + ".join(sorted(trained, reverse=True))
        cells = (variant.name, method, kind, by, f"{seconds:.3f}", memory, foretold, f"{tflop:.4g}", used)
        table.append(f"| {' | '.join(cells)} |")
    return table


def measure(runs: Runs, variants: list[Variant], peak_tflops: float | None) -> tuple[list[str], bool]:
    """The cost table, and whether every part of it could be measured."""
    table, complete = [], True
    for variant in variants:
        forward = forward_flops(runs.pipeline(variant.sizes), variant)
        for method in MEASURED:
            seen: list[Iteration] = []
            for by in ("framework", "bare torch"):
                started = time.perf_counter()
                try:
                    cost = framework(runs, method, variant) if by == "framework" else bare(runs, variant, seen)
                    seen = cost.iterations
                    new = rows(variant, method, by, cost, forward, peak_tflops)
                except torch.cuda.OutOfMemoryError as error:
                    complete = False
                    new = [f"| {variant.name} | {method} | | {by} | out of memory: {str(error).splitlines()[0][:80]} |"]
                free_memory()
                table += new
                print(*new, f"({time.perf_counter() - started:.0f} s with loading)", sep="\n", flush=True)
                if not seen:
                    break
    return table, complete


def check(arguments: argparse.Namespace) -> tuple[list[str], bool]:
    """The rows of gpu_checks.py, in a process of its own: it wants deterministic kernels, which cost time."""
    command = [sys.executable, str(Path(__file__).with_name("gpu_checks.py")), *(["--tiny"] if arguments.tiny else [])]
    command += [f"--leave-out={','.join(arguments.leave_out)}"] if arguments.leave_out else []
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ})
    print(ran.stdout, flush=True)
    return [line for line in ran.stdout.splitlines() if line.startswith("|")], ran.returncode == 0


def main() -> int:
    """Run both parts; 0 when everything was measured and works, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny Wan instead, which a CPU can do")
    parser.add_argument("--only", choices=("costs", "checks"), help="one part alone")
    parser.add_argument("--leave-out", type=lambda text: text.split(","), default=[], help="checks not to make, a,b")
    parser.add_argument("--peak-tflops", type=float, help="of the device in bfloat16; known for some by name")
    parser.add_argument("--dir", type=Path, help="where pipelines go (6 GB); a temporary folder by default")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if not on_gpu() and not arguments.tiny:
        print("error: there is no CUDA device here; --tiny runs on the CPU", file=sys.stderr)
        return 2
    peak_tflops = arguments.peak_tflops or known_peak(device_name())
    costs, checks, measured, works = [], [], True, True
    if arguments.only != "costs":
        checks, works = check(arguments)
    if arguments.only != "checks":
        with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
            costs, measured = measure(Runs(Path(folder)), [CPU] if arguments.tiny else [SMALL, LARGE], peak_tflops)
    print(f"\n{device_name()}, torch {torch.__version__}, peak {peak_tflops or BLANK} TFLOP/s in bfloat16\n")
    for table in filter(None, ([HEADER, *costs] if costs else [], checks)):
        print(*table, sep="\n", end="\n\n")
    return 0 if measured and works else 1


if __name__ == "__main__":
    sys.exit(main())
