"""What one base for three roles costs and saves: DMD2 by LoRA with `share: teacher` against three copies of the network.

    python benchmarks/shared_base.py                # a middle-sized Wan on the CPU
    python benchmarks/shared_base.py --wan-1.3b     # Wan 1.3B's geometry at 480p, random weights; needs a GPU
    python benchmarks/shared_base.py --tiny

Both runs are in memory and take turns at every iteration; a ratio of times is the median over neighbouring turns. Bytes are
those of weights, each storage once (of the base, and of what is trained: adapters and their moments), and the most that an
iteration holds beside them: what autograd saves on a CPU, the peak of the allocator on a GPU, next to the estimate of `check`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import statistics
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from dmd2_step import KINDS, Seconds, due, operator_of, timed
from gpu import device_name, on_gpu, peak_memory, reset_peak, synchronize
from gpu_runs import CPU, LARGE, Runs, Variant, build
from saved_bytes import SavedBytes
from torch import Tensor

from fastvideo_core.contracts.roles import is_lora_parameter
from fastvideo_core.dispatch.examine import examine
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.memory_estimate import estimate_run
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.tracking.display import Display
from fastvideo_core.training.trainer import DistillTrainer

TIME_TARGET, WEIGHTS_TARGET = 1.05, 1 / 3
SIZES = {"num_layers": 8, "num_heads": 8, "head_dim": 64, "ffn_dim": 2048, "text_dim": 256}
MIDDLE = Variant("middle-sized Wan", SIZES, 9, 128, 128, "full", 16)
RANK = 16
SHARED, COPIES = "shared", "three copies"
TITLES = {"wall": "wall clock", "cpu": "CPU time"}


@dataclass
class Side:
    """One of the two runs.

    Args:
        foretold: the peak that `check` tells, in bytes.
        others: bytes on the GPU that are not this run's.
        peak: the most that its iterations held, in bytes: on a GPU of everything, else of what autograd saved.
        spent: what timed iterations took, by whether the student was due.
    """

    name: str
    runtime: DistillRuntime
    batch: Any
    foretold: int
    others: int
    peak: int = 0
    step: int = 0
    spent: dict[bool, list[Seconds]] = field(default_factory=lambda: {True: [], False: []})

    def iterate(self, *, counts: bool = False) -> None:
        """Makes the next iteration."""
        self.step += 1
        trainer = DistillTrainer(self.runtime.training_args, {}, Display())
        synchronize()
        seconds = timed(lambda: self._iterate(trainer))
        if counts:
            self.spent[due(self.step)].append(seconds)
        if on_gpu():
            print(f"{self.name}, step {self.step}, {KINDS[due(self.step)]}: {seconds.wall:.3f} s", flush=True)

    def _iterate(self, trainer: DistillTrainer) -> None:
        trainer.run(self.runtime.method, [self.batch], self.step, self.step - 1)
        synchronize()

    def measure_peak(self) -> None:
        """By one iteration of each kind, which a GPU makes as fast as others."""
        saved = SavedBytes(frozenset(tensor.untyped_storage().data_ptr() for tensor in self.weights()))
        reset_peak()
        with contextlib.nullcontext() if on_gpu() else saved.counting():
            for _ in KINDS:
                self.iterate(counts=on_gpu())
        found = peak_memory()
        self.peak = saved.peak if found is None else found - self.others

    def weights(self, *, adapters: bool | None = None) -> list[Tensor]:
        """All of the networks', or adapters alone, or all but these."""
        found = []
        for handle in self.runtime.method.bundle:
            for module in handle.modules.values():
                tensors = [*module.named_parameters(), *module.named_buffers()]
                found += [t for name, t in tensors if adapters is None or is_lora_parameter(name) == adapters]
        return found

    def moments(self) -> list[Tensor]:
        """What the optimizers keep."""
        return [
            value
            for handle in self.runtime.method.bundle
            for optimizer in handle.optimizers.values()
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]

    def held(self) -> int:
        """All bytes at the peak."""
        return self.peak + (0 if on_gpu() else bytes_of(self.weights()) + bytes_of(self.moments()))


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of all of them, one that is there twice once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def open_side(name: str, runs: Runs, variant: Variant, precision: str) -> Side:
    """The run as the command line builds it, and the estimate of `check`."""
    config = runs.write("dmd2", variant, mixed_precision=precision, logging_steps=10**6)
    run = yaml.safe_load(config.read_text(encoding="utf-8"))
    for role in ("student", "critic"):
        run["roles"][role] |= {"lora": {"rank": RANK}, **({"share": "teacher"} if name == SHARED else {})}
    config.write_text(yaml.safe_dump(run), encoding="utf-8")
    registry = PluginRegistry()
    examined, _ = examine(load_run_config(config, registry), registry, starts=True)
    estimate = estimate_run(examined)
    assert estimate is not None
    others = torch.cuda.memory_allocated() if on_gpu() else 0
    runtime = build(config)
    return Side(name, runtime, next(iter(runtime.dataloader)), estimate.peak, others)


def report(side: Side) -> None:
    """Prints its bytes."""
    base, trained = side.weights(adapters=False), [*side.weights(adapters=True), *side.moments()]
    parts = {"base": bytes_of(base), "adapters and moments": bytes_of(trained)}
    parts["allocator's peak" if on_gpu() else "saved by autograd"] = side.peak
    parts["check's estimate"] = side.foretold
    ratio = f"; estimate / peak {side.foretold / side.peak:.3f}" if on_gpu() else ""
    print(
        f"{side.name}, MiB: " + ", ".join(f"{name} {size / 2**20:.2f}" for name, size in parts.items()) + ratio,
        flush=True,
    )


def measure_time(sides: list[Side], iterations: int) -> bool:
    """Prints the times of iterations in turns, by kind; whether the target is met."""
    for turn in range(iterations):
        for side in sides if turn % 4 < len(KINDS) else sides[::-1]:  # each is first in half of either kind
            side.iterate(counts=True)
    met = True
    for is_due, attribute in itertools.product(KINDS, TITLES):
        by = {side.name: list(map(operator_of(attribute), side.spent[is_due])) for side in sides}
        if not all(by.values()):  # one iteration in turns has one kind
            continue
        line = ", ".join(f"{name} {statistics.median(found):.4f} s" for name, found in by.items())
        if len(by) > 1:
            ratio = statistics.median(one / other for one, other in zip(by[SHARED], by[COPIES], strict=True))
            line += f", ratio {ratio:.3f}"
            met = met and (attribute == "cpu" or ratio <= TIME_TARGET)
        print(f"{KINDS[is_due]}, {TITLES[attribute]}: {line}")
    return met


def measure_bytes(shared: Side, copies: Side) -> bool:
    """Prints the ratios of bytes; whether the target is met."""
    ratio = bytes_of(shared.weights(adapters=False)) / bytes_of(copies.weights(adapters=False))
    held = shared.held() / copies.held()
    print(f"bytes of the base {ratio:.4f} of three copies'; all bytes at the peak {held:.3f}")
    return ratio <= WEIGHTS_TARGET


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 0 when the targets are met, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiny", action="store_true", help="a tiny Wan, of which times say nothing")
    size.add_argument("--wan-1.3b", action="store_true", dest="large", help="on a GPU, in bfloat16")
    parser.add_argument("--only-shared", action="store_true", help="without three copies to compare with")
    parser.add_argument("--iterations", type=int, help="in turns (default: by size)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    parser.add_argument("--dir", type=Path, help="where the pipeline goes; a temporary folder by default")
    args, _ = parser.parse_known_args(arguments)  # `nox -s bench -- ...` gives every benchmark the same arguments
    if args.large and not on_gpu():
        print("error: there is no CUDA device here; without --wan-1.3b it runs on the CPU", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(args.threads)
    variant = replace(LARGE, iterations=0) if args.large else CPU if args.tiny else MIDDLE
    iterations = variant.iterations if args.iterations is None else args.iterations
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        runs = Runs(Path(folder) / "runs")
        print(f"{variant.name}, {variant.tokens} tokens, DMD2 with LoRA of rank {RANK}, {device_name()}", flush=True)
        sides = []
        for name in (SHARED,) if args.only_shared else (SHARED, COPIES):
            side = open_side(name, runs, variant, "bf16" if on_gpu() else "no")
            side.iterate()  # from here on the critic's moments are there, and the libraries have warmed up
            side.iterate()
            side.measure_peak()
            report(side)
            sides.append(side)
        fast = measure_time(sides, iterations)
        if args.only_shared:
            return 0
        small = measure_bytes(*sides)
    print(f"time at most {TIME_TARGET:.2f} of three copies': {'yes' if fast else 'NO'}")
    print(f"bytes of the base at most a third: {'yes' if small else 'NO'}")
    return 0 if (fast or args.tiny) and small else 1


if __name__ == "__main__":
    sys.exit(main())
