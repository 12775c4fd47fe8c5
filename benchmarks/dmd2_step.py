"""What an iteration of DMD2 costs: network evaluations, time and activation memory, against what the algorithm needs.

    python benchmarks/dmd2_step.py [--iterations 160] [--threads 1]

The whole of method and trainer runs, on a tiny Wan. The least that the algorithm needs is computed here on its own: by
formula for the evaluations, by networks that are called one at a time for time and memory.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import logging
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import WanTransformer3DModel
from saved_bytes import SavedBytes, weights_of
from torch import Tensor, nn
from trainer import LATENT, SEED, SIZES, TEXT, TEXT_LENGTH, write_data

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.runtime import DistillRuntime, build_runtime_from_config
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_data.data_set import DataSet
from fastvideo_wan.tiny import write_tiny_pipeline

TIME_TARGET, MEMORY_TARGET = 1.10, 1.05
STEPS = (1000, 750, 500, 250)
STUDENT_EVERY = 2
GUIDANCE = 3.5
TERM = {"adversarial_weight": 0.1, "r1_weight": 1.0, "r1_sigma": 0.1}
ROLES = ("student", "teacher", "critic")
KINDS = {True: "student due", False: "other"}

# --- network evaluations ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Evaluation:
    """One kind of call of a role's network: how many samples at once, and whether a graph was made."""

    role: str
    graph: bool
    samples: int


def least_evaluations(*, due: bool, exit_index: int, guidance: float, batch_size: int = 1) -> Counter[Evaluation]:
    """What an iteration cannot do without.

    The rollout takes one call for each step up to the exit, of which only the last has a graph, and only when the student
    is due. A due student needs both scores without a graph, the teacher's halves of guidance in one call. The critic's
    own loss needs one call with a graph.
    """
    teacher_samples = batch_size if guidance == 1 else 2 * batch_size
    least = Counter({Evaluation("student", False, batch_size): exit_index + (not due)})
    least[Evaluation("critic", True, batch_size)] = 1
    if due:
        least[Evaluation("student", True, batch_size)] = 1
        least[Evaluation("critic", False, batch_size)] = 1
        least[Evaluation("teacher", False, teacher_samples)] = 1
    return +least


class CallCounter:
    """Counts the calls of every role's network."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.calls: Counter[Evaluation] = Counter()
        for role, network in networks.items():
            network.register_forward_hook(functools.partial(self._count, role))

    def _count(self, role: str, module: nn.Module, args: Any, output: Any) -> None:
        out: Tensor = output[0]
        self.calls[Evaluation(role, out.requires_grad, len(out))] += 1

    def take(self) -> Counter[Evaluation]:
        """The calls since the last time."""
        calls, self.calls = self.calls, Counter()
        return calls


def count_evaluations(runtime: DistillRuntime, batch: Any, guidance: float, iterations: int) -> bool:
    """Prints the table for one guidance scale; True when every iteration made the least calls."""
    counter = CallCounter(networks_of(runtime))
    seen: dict[tuple[bool, int], list[Counter[Evaluation]]] = defaultdict(list)

    def finished(iteration: int) -> None:
        seen[due(iteration), exit_of(runtime, iteration)].append(counter.take())

    run(runtime, Turns(batch, iterations, after=finished))
    met = True
    for is_due in (True, False):
        for role in ROLES:
            cells = []
            for graph in (False, True):
                made, least = [], []
                for index in range(len(STEPS)):
                    needed = least_evaluations(due=is_due, exit_index=index, guidance=guidance)
                    took = seen[is_due, index]
                    met = met and bool(took) and all(calls == needed for calls in took)
                    made.append(shown([of(calls, role, graph) for calls in took]))
                    least.append(shown([of(needed, role, graph)]))
                cells += ["/".join(made), "/".join(least)]
            print(
                f"{guidance:<10g}{KINDS[is_due]:<13}{role:<9}{cells[0]:>21}{cells[1]:>21}{cells[2]:>13}{cells[3]:>13}"
            )
    return met


def of(calls: Counter[Evaluation], role: str, graph: bool) -> str:
    """A role's calls as `2`, or `1x2B` where one call holds two batches."""
    found = [
        (kind.samples, number) for kind, number in sorted(calls.items()) if (kind.role, kind.graph) == (role, graph)
    ]
    return "+".join(f"{number}x{samples}B" if samples > 1 else str(number) for samples, number in found) or "0"


def shown(values: list[str]) -> str:
    return "|".join(sorted(set(values))) or "?"


# --- time -------------------------------------------------------------------------------------------------------------


@dataclass
class Seconds:
    """One measurement: on the wall, and of this process's CPU time."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)


def clock() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def timed(work: Callable[[], Any]) -> Seconds:
    start = clock()
    work()
    end = clock()
    return Seconds(end.wall - start.wall, end.cpu - start.cpu)


class Parts:
    """Networks and optimizers of its own, each called and timed alone.

    Args:
        pipeline: folder of the tiny Wan.
        text: [L, D] of the batch's caption.
    """

    def __init__(self, pipeline: Path, text: Tensor) -> None:
        load = functools.partial(WanTransformer3DModel.from_pretrained, pipeline, subfolder="transformer")
        self.networks: dict[str, nn.Module] = {role: load() for role in ROLES}
        self.networks["teacher"].requires_grad_(False)
        self.optimizers = {
            role: torch.optim.AdamW(self.networks[role].parameters(), 1e-6) for role in ("student", "critic")
        }
        generator = torch.Generator().manual_seed(SEED)
        padded = torch.zeros(1, TEXT_LENGTH, text.shape[-1])
        padded[0, : len(text)] = text
        self._inputs = (torch.randn(1, *LATENT, generator=generator), torch.tensor([600.0]), padded)
        self._gradient = torch.randn(1, *LATENT, generator=generator)

    def forward(self, role: str, samples: int = 1) -> Tensor:
        noisy, t, text = (torch.cat([value] * samples) for value in self._inputs)
        out: Tensor = self.networks[role](
            hidden_states=noisy, timestep=t, encoder_hidden_states=text, return_dict=False
        )[0]
        return out

    def forward_backward(self, role: str) -> None:
        self.forward(role).backward(self._gradient)

    def needed(self, *, due: bool, exit_index: int) -> dict[str, Seconds]:
        """Runs what an iteration needs; the time of each part, without anything between them."""
        spent: dict[str, Seconds] = defaultdict(Seconds)
        least = least_evaluations(due=due, exit_index=exit_index, guidance=GUIDANCE)
        for evaluation, number in least.items():
            role, samples = evaluation.role, evaluation.samples
            for _ in range(number):
                if evaluation.graph:
                    spent["forward with gradient"] += timed(functools.partial(self.forward_backward, role))
                else:
                    with torch.no_grad():
                        spent["forward"] += timed(functools.partial(self.forward, role, samples))
        for role, optimizer in self.optimizers.items():
            if least[Evaluation(role, True, 1)]:
                spent["optimizer step"] += timed(optimizer.step)
                optimizer.zero_grad(set_to_none=True)
        return spent


def measure_time(runtime: DistillRuntime, batch: Any, parts: Parts, iterations: int) -> bool:
    """Prints the table; True when no kind of iteration takes more than the target."""
    whole: dict[bool, list[Seconds]] = defaultdict(list)
    alone: dict[bool, list[dict[str, Seconds]]] = defaultdict(list)
    warm_up = max(4, iterations // 10)

    def finished(iteration: int) -> None:
        end = clock()
        spent = Seconds(end.wall - turns.started.wall, end.cpu - turns.started.cpu)
        needed = parts.needed(due=due(iteration), exit_index=exit_of(runtime, iteration))
        if iteration > warm_up:
            whole[due(iteration)].append(spent)
            alone[due(iteration)].append(needed)

    turns = Turns(batch, iterations + warm_up, after=finished)
    run(runtime, turns)
    met = True
    names = ("forward", "forward with gradient", "optimizer step")
    print(f"{'':<13}{'of':<12}" + "".join(f"{name:>24}" for name in (*names, "sum", "iteration")) + f"{'ratio':>8}")
    for is_due in (True, False):
        for attribute, title in (("wall", "wall clock"), ("cpu", "CPU time")):
            seconds = operator_of(attribute)
            columns = {name: [seconds(parts_of.get(name, Seconds())) for parts_of in alone[is_due]] for name in names}
            columns["sum"] = [sum(column) for column in zip(*columns.values(), strict=True)]
            columns["iteration"] = [seconds(spent) for spent in whole[is_due]]
            ratios = [one / other for one, other in zip(columns["iteration"], columns["sum"], strict=True)]
            ratio = statistics.median(ratios)
            cells = "".join(f"{1000 * statistics.median(column):>24.2f}" for column in columns.values())
            print(f"{KINDS[is_due]:<13}{title:<12}{cells}{ratio:>8.3f}")
            met = met and (attribute == "cpu" or ratio <= TIME_TARGET)
    return met


def operator_of(attribute: str) -> Callable[[Seconds], float]:
    return lambda seconds: float(getattr(seconds, attribute))


# --- memory -----------------------------------------------------------------------------------------------------------


def measure_memory(
    runtime: DistillRuntime, with_term: DistillRuntime, batch: Any, parts: Parts, iterations: int
) -> bool:
    """Prints the table; True when no iteration holds more than the target, with the adversarial term or without."""
    alone = {}
    saved = SavedBytes(weights_of(parts.networks))
    with saved.counting():
        for role in ("student", "critic"):
            parts.forward_backward(role)
            alone[role] = saved.take_peak()
    peaks, left = peaks_of(runtime, batch, iterations)
    larger = max(alone.values())
    for role, size in alone.items():
        print(f"{f'{role}, network alone':<34}{size / 2**20:>10.3f}")
    for is_due in (True, False):
        print(f"{f'iteration, {KINDS[is_due]}':<34}{peaks[is_due] / 2**20:>10.3f}{peaks[is_due] / larger:>10.3f}")
    term_peaks, term_left = peaks_of(with_term, batch, iterations)
    for is_due in (True, False):
        peak = term_peaks[is_due]
        print(f"{f'adversarial, {KINDS[is_due]}':<34}{peak / 2**20:>10.3f}{peak / larger:>10.3f}")
    print(f"{'left after an iteration':<34}{max(left, term_left) / 2**20:>10.3f}")
    print(
        f"{'if both graphs lived at once':<34}{sum(alone.values()) / 2**20:>10.3f}{sum(alone.values()) / larger:>10.3f}"
    )
    return max(*peaks.values(), *term_peaks.values()) <= MEMORY_TARGET * larger and max(left, term_left) == 0


def peaks_of(runtime: DistillRuntime, batch: Any, iterations: int) -> tuple[dict[bool, int], int]:
    """The highest peak of iterations with and without the student, and the most that was left after one."""
    saved = SavedBytes(weights_of({name: module for handle in runtime.method.bundle for name, module in named(handle)}))
    peaks: dict[bool, list[int]] = defaultdict(list)
    left: list[int] = []

    def finished(iteration: int) -> None:
        peaks[due(iteration)].append(saved.take_peak())
        left.append(saved.live)

    with saved.counting():
        run(runtime, Turns(batch, iterations, after=finished))
    return {is_due: max(found) for is_due, found in peaks.items()}, max(left)


def named(handle: RoleHandle) -> Iterator[tuple[str, nn.Module]]:
    return ((f"{handle.name}.{name}", module) for name, module in handle.modules.items())


# --- the run ----------------------------------------------------------------------------------------------------------


class Turns:
    """A dataloader that calls `after(iteration)` between two iterations: asking for a batch is where one begins.

    Args:
        batch: given again and again.
        iterations: how many are followed by `after`.
    """

    def __init__(self, batch: Any, iterations: int, *, after: Callable[[int], None]) -> None:
        self.started = Seconds()
        self.needed_steps = iterations + 1
        self._batch, self._after = batch, after

    def __iter__(self) -> Iterator[Any]:
        for iteration in range(1, self.needed_steps + 1):
            if iteration > 1:
                self._after(iteration - 1)
            self.started = clock()
            yield self._batch


def run(runtime: DistillRuntime, turns: Turns) -> None:
    """As `fastvideo-distill run.yaml`, without the lines of the progress."""
    trainer = DistillTrainer(runtime.training_args, config={})
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.run(runtime.method, turns, turns.needed_steps, callbacks=runtime.callbacks)


def build(
    folder: Path, pipeline: Path, data: Path, *, guidance: float = GUIDANCE, options: Mapping[str, Any] | None = None
) -> DistillRuntime:
    """The dmd2 run, as the command line builds it; `options` go to its method."""
    number = len(list(folder.glob("run-*.yaml")))
    path = folder / f"run-{number}.yaml"
    frames, height, width = LATENT[1:]
    config = {
        "recipe": {"family": "wan", "method": "dmd2"},
        "roles": {role: {"path": str(pipeline), "trainable": role != "teacher"} for role in ROLES},
        "training": {
            "seed": SEED,
            "output_dir": str(folder / f"run-{number}"),
            "data_path": str(data),
            "max_train_steps": 10**6,
            "learning_rate": 1e-6,
            "logging_steps": 10**6,
            "num_height": height * 8,
            "num_width": width * 8,
            "num_latent_t": frames,
        },
        "method_config": {
            "dmd_denoising_steps": list(STEPS),
            "generator_update_interval": STUDENT_EVERY,
            "real_score_guidance_scale": guidance,
            **(options or {}),
        },
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    registry = PluginRegistry()
    return build_runtime_from_config(load_run_config(path, registry), registry)


def due(iteration: int) -> bool:
    return iteration % STUDENT_EVERY == 0


def exit_of(runtime: DistillRuntime, iteration: int) -> int:
    method: Any = runtime.method
    return int(method.exit_index(iteration))


def networks_of(runtime: DistillRuntime) -> dict[str, nn.Module]:
    return {role: runtime.method.bundle[role].modules["transformer"] for role in ROLES}


def main() -> int:
    """Run the benchmark; 0 when the targets are met, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=160, help="timed iterations (default: 160)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    args, _ = parser.parse_known_args()  # `nox -s bench -- ...` gives every benchmark the same arguments
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline = folder / "wan"
        write_tiny_pipeline(pipeline, seed=SEED, **SIZES)
        data = write_data(folder / "data")
        batch = next(DataSet(data).loader(batch_size=1, seed=SEED))
        make = functools.partial(build, folder, pipeline, data)
        parts = Parts(pipeline, batch["text_embedding"][0, : TEXT[0]])
        size = sum(p.numel() for p in parts.networks["student"].parameters())
        print(f"tiny Wan, {size:,} parameters, latents {[1, *LATENT]}, text {list(TEXT)} padded to {TEXT_LENGTH}")
        print(
            f"student of {len(STEPS)} steps, simulate, due every {STUDENT_EVERY} iterations; {args.threads} thread(s)\n"
        )

        print("network evaluations of an iteration, by exit step 1/2/3/4 of the rollout (2B: both halves in one call)")
        print(f"{'':<32}{'forward':>21}{'least':>21}{'with gradient':>13}{'least':>13}")
        print(f"{'guidance':<10}{'iteration':<13}{'role':<9}")
        counted = [count_evaluations(make(guidance=scale), batch, scale, 64) for scale in (GUIDANCE, 1.0)]

        print(f"\ntime, median ms of {args.iterations} iterations in turns with their parts, guidance {GUIDANCE:g}")
        fast = measure_time(make(), batch, parts, args.iterations)

        print(f"\n{'activations saved for backward, MiB':<34}{'peak':>9}{'ratio':>10}")
        small = measure_memory(make(), make(options=TERM), batch, parts, 16)
    print(f"\nthe least network evaluations in every iteration: {'yes' if all(counted) else 'NO'}")
    print(f"time at most {TIME_TARGET:.2f} of the sum of the parts: {'yes' if fast else 'NO'}")
    print(f"peak memory at most {MEMORY_TARGET:.2f} of the larger phase: {'yes' if small else 'NO'}")
    return 0 if all(counted) and fast and small else 1


if __name__ == "__main__":
    sys.exit(main())
