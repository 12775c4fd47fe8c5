"""What an iteration of each method costs: network evaluations and time, against what the algorithm needs.

    python benchmarks/method_step.py [--iterations 80] [--threads 1] [WORDS ...]

With words, only cases whose name contains one of them. DMD2's iterations, which differ by exit step and by who is due, have a
benchmark of their own (dmd2_step.py), from which counting and timing are taken: a whole run of method and trainer on a tiny Wan,
and after each iteration the same network calls and optimizer steps, one at a time on networks of their own.
"""

from __future__ import annotations

import argparse
import functools
import logging
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import WanTransformer3DModel
from dmd2_step import TIME_TARGET, CallCounter, Evaluation, Seconds, Turns, clock, operator_of, run, timed
from torch import Tensor, nn
from trainer import LATENT, SEED, SIZES, TEXT, TEXT_LENGTH, write_data

from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.runtime import DistillRuntime, build_runtime_from_config
from fastvideo_core.optim import move_averages
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.data_set import DataSet
from fastvideo_data.schema import arrow_schema, encode_tensor, key_value_metadata, write_part
from fastvideo_rcm.tangent import directional_derivative
from fastvideo_wan.tiny import write_tiny_pipeline

STATES = (1000.0, 900.0, 750.0, 500.0, 0.0)
"""Of the student's four steps at the tiny Wan's shift of 3, and the clean end."""

NAMES = ("forward", "forward with gradient", "optimizer step", "forward mode")


def evaluations(**roles: tuple[int, int] | tuple[int, int, int]) -> Counter[Evaluation]:
    """By role: calls with a graph, calls without one, and the samples of these (1)."""
    found: Counter[Evaluation] = Counter()
    for role, (with_graph, without, *samples) in roles.items():
        found[Evaluation(role, True, 1)] += with_graph
        found[Evaluation(role, False, *(samples or [1]))] += without
    return +found


@dataclass(frozen=True)
class Case:
    """A method with options, and the network evaluations that an iteration of it cannot do without, at batch 1.

    Args:
        averages: whether it makes a role `target` that is moved to the student after each update.
        turn: (n, k): of the iterations n, n + k, n + 2 k ..., where iterations differ.
        forward_mode: whether the student's call without a graph is the one that gives its derivative too.
    """

    method: str
    roles: Mapping[str, bool]
    least: Counter[Evaluation]
    method_config: Mapping[str, Any] = field(default_factory=dict)
    pipeline_config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    on_trajectories: bool = False
    averages: bool = False
    turn: tuple[int, int] = (0, 1)
    forward_mode: bool = False


ONE = {"student": True}
TWO = {"student": True, "teacher": False}
THREE = {**TWO, "critic": True}
SDE = {"sampler_kind": "sde"}
MATCHING = {"dmd_denoising_steps": [1000], "tangent_warmup_steps": 0, "generator_update_interval": 2}
"""rcm whose rollouts are one call, as those of dmd2 are counted elsewhere."""

CASES: Mapping[str, Case] = {
    "finetune": Case("finetune", ONE, evaluations(student=(1, 0))),
    "kd x0": Case("kd", ONE, evaluations(student=(1, 0)), on_trajectories=True),
    "kd velocity": Case("kd", ONE, evaluations(student=(1, 0)), {"target": "velocity"}, on_trajectories=True),
    "kd guidance": Case(
        "kd",
        TWO,
        evaluations(student=(1, 0), teacher=(0, 1, 2)),
        {"target": "guidance", "teacher_guidance_scale": 3.0},
        training={"validation_guidance_scale": "1"},
    ),
    "consistency euler": Case(
        "consistency", TWO, evaluations(student=(1, 1), teacher=(0, 1, 2)), {"solver": "euler"}, SDE
    ),
    "consistency heun": Case(
        "consistency", TWO, evaluations(student=(1, 1), teacher=(0, 2, 2)), {"solver": "heun"}, SDE
    ),
    "consistency guidance 1": Case(
        "consistency", TWO, evaluations(student=(1, 1), teacher=(0, 1)), {"teacher_guidance_scale": 1.0}, SDE
    ),
    "consistency average": Case(
        "consistency",
        TWO,
        evaluations(student=(1, 0), target=(0, 1), teacher=(0, 1, 2)),
        {"target": "average"},
        SDE,
        averages=True,
    ),
    "consistency training": Case("consistency", ONE, evaluations(student=(1, 1)), pipeline_config=SDE),
    "rcm sCM alone": Case(
        "rcm", TWO, evaluations(student=(1, 1), teacher=(0, 1, 2)), {"dmd_weight": 0}, SDE, forward_mode=True
    ),
    "rcm student due": Case(
        "rcm",
        THREE,
        evaluations(student=(2, 1), teacher=(0, 2, 2), critic=(0, 1)),
        MATCHING,
        turn=(0, 2),
        forward_mode=True,
    ),
    "rcm critic due": Case("rcm", THREE, evaluations(student=(0, 1), critic=(1, 0)), MATCHING, turn=(1, 2)),
}
"""By name. Guided, both halves of the teacher are one call of two samples."""


def roles_of(case: Case) -> tuple[str, ...]:
    """Those of run.yaml, and the one that the method makes."""
    return (*case.roles, "target") if case.averages else tuple(case.roles)


class Parts:
    """Networks and optimizers of its own, each called and timed alone.

    Args:
        pipeline: folder of the tiny Wan.
        case: whose calls they make.
        text: [L, D] of the batch's caption.
    """

    def __init__(self, pipeline: Path, case: Case, text: Tensor) -> None:
        load = functools.partial(WanTransformer3DModel.from_pretrained, pipeline, subfolder="transformer")
        self._case = case
        self._networks: dict[str, nn.Module] = {role: load() for role in roles_of(case)}
        self._optimizers = [
            torch.optim.AdamW(self._networks[role].parameters(), 1e-6)
            for role in case.roles
            if case.least[Evaluation(role, True, 1)]
        ]
        generator = torch.Generator().manual_seed(SEED)
        padded = torch.zeros(1, TEXT_LENGTH, text.shape[-1])
        padded[0, : len(text)] = text
        self._inputs = (torch.randn(1, *LATENT, generator=generator), torch.tensor([600.0]), padded)
        self._gradient = torch.randn(1, *LATENT, generator=generator)

    def needed(self) -> dict[str, Seconds]:
        """Runs what an iteration needs; the time of each part, without anything between them."""
        spent: dict[str, Seconds] = defaultdict(Seconds)
        for evaluation, number in self._case.least.items():
            in_forward_mode = self._case.forward_mode and evaluation == Evaluation("student", False, 1)
            work = self._derivative if in_forward_mode else functools.partial(self._call, evaluation)
            for _ in range(number):
                with torch.set_grad_enabled(evaluation.graph):
                    spent[NAMES[3 if in_forward_mode else evaluation.graph]] += timed(work)
        for optimizer in self._optimizers:
            spent[NAMES[2]] += timed(optimizer.step)
            optimizer.zero_grad(set_to_none=True)
        if self._case.averages:
            pairs = [list(self._networks[role].parameters()) for role in ("target", "student")]
            spent[NAMES[2]] += timed(lambda: move_averages(zip(*pairs, strict=True), 0.99))
        return spent

    def _call(self, evaluation: Evaluation) -> None:
        noisy, t, text = (torch.cat([value] * evaluation.samples) for value in self._inputs)
        network = self._networks[evaluation.role]
        out: Tensor = network(hidden_states=noisy, timestep=t, encoder_hidden_states=text, return_dict=False)[0]
        if evaluation.graph:
            out.backward(self._gradient)

    def _derivative(self) -> None:
        noisy, t, text = self._inputs
        network = self._networks["student"]

        def predict(x: Tensor, at: Tensor) -> Tensor:
            out: Tensor = network(hidden_states=x, timestep=at, encoder_hidden_states=text, return_dict=False)[0]
            return out

        directional_derivative(predict, (noisy, t), (self._gradient, torch.full_like(t, 1000)))


def measure(case: Case, runtime: DistillRuntime, batch: Any, parts: Parts, iterations: int) -> tuple[bool, bool]:
    """Prints the case's lines; whether every iteration made the least calls, and takes no more time than the target."""
    counter = CallCounter({role: runtime.method.bundle[role].modules["transformer"] for role in roles_of(case)})
    whole: list[Seconds] = []
    alone: list[dict[str, Seconds]] = []
    counted: set[frozenset[tuple[Evaluation, int]]] = set()
    warm_up = max(4, iterations // 10)

    def finished(iteration: int) -> None:
        end = clock()
        spent = Seconds(end.wall - turns.started.wall, end.cpu - turns.started.cpu)
        first, every = case.turn
        if iteration % every != first:
            counter.take()
            return
        counted.add(frozenset(counter.take().items()))
        needed = parts.needed()
        if iteration > warm_up:
            whole.append(spent)
            alone.append(needed)

    turns = Turns(batch, case.turn[1] * (iterations + warm_up), after=finished)
    run(runtime, turns)
    least = counted == {frozenset(case.least.items())}
    met = True
    for attribute, title in (("wall", "wall clock"), ("cpu", "CPU time")):
        seconds = operator_of(attribute)
        columns = {name: [seconds(parts_of.get(name, Seconds())) for parts_of in alone] for name in NAMES}
        columns["sum"] = [sum(column) for column in zip(*columns.values(), strict=True)]
        columns["iteration"] = [seconds(spent) for spent in whole]
        ratio = statistics.median(one / other for one, other in zip(columns["iteration"], columns["sum"], strict=True))
        cells = "".join(f"{1000 * statistics.median(column):>24.2f}" for column in columns.values())
        print(f"{title:<12}{cells}{ratio:>8.3f}", flush=True)
        met = met and (attribute == "cpu" or ratio <= TIME_TARGET)
    return least, met


def build(folder: Path, pipeline: Path, data: Path, case: Case) -> DistillRuntime:
    """The run, as the command line builds it."""
    folder.mkdir()
    config = {
        "recipe": {"family": "wan", "method": case.method},
        "roles": {role: {"path": str(pipeline), "trainable": trained} for role, trained in case.roles.items()},
        "training": {
            "seed": SEED,
            "output_dir": str(folder / "run"),
            "data_path": str(data),
            "max_train_steps": 10**6,
            "learning_rate": 1e-6,
            "logging_steps": 10**6,
            **case.training,
        },
        "pipeline_config": dict(case.pipeline_config),
        "method_config": dict(case.method_config),
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    registry = PluginRegistry()
    return build_runtime_from_config(load_run_config(path, registry), registry)


def write_trajectories(folder: Path) -> Path:
    """A data set of one trajectory of random states."""
    generator = torch.Generator().manual_seed(SEED)
    row: dict[str, Any] = {"id": "0", "file_name": "0", "caption": "a clip", "media_type": "text"}
    row |= encode_tensor("text_embedding", torch.randn(*TEXT, generator=generator))
    row |= encode_tensor("trajectory_latents", torch.randn(len(STATES), *LATENT, generator=generator))
    row |= encode_tensor("trajectory_timesteps", torch.tensor(STATES))
    tensors = ("text_embedding", "trajectory_latents", "trajectory_timesteps")
    schema = arrow_schema(tensors, ("id", "file_name", "caption", "media_type"))
    folder.mkdir()
    metadata = key_value_metadata(normalised={"trajectory_latents": True}, settings={})
    write_part(folder / "part.parquet", [row], schema, metadata)
    return folder


def main() -> int:
    """Run the benchmark; 0 when the targets are met, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="cases whose name contains one of them (default: all)")
    parser.add_argument("--iterations", type=int, default=80, help="timed iterations of a case (default: 80)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    args, _ = parser.parse_known_args()  # `nox -s bench -- ...` gives every benchmark the same arguments
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(args.threads)
    chosen = [name for name in CASES if not args.words or any(word in name for word in args.words)]
    missed: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pipeline = folder / "wan"
        write_tiny_pipeline(pipeline, seed=SEED, **SIZES)
        data = {False: write_data(folder / "data"), True: write_trajectories(folder / "trajectories")}
        print(f"median ms of {args.iterations} iterations in turns with their parts, {args.threads} thread(s)\n")
        print(f"{'':<12}" + "".join(f"{name:>24}" for name in (*NAMES, "sum", "iteration")) + f"{'ratio':>8}")
        for number, name in enumerate(chosen):
            case = CASES[name]
            batch = next(DataSet(data[case.on_trajectories]).loader(batch_size=1, seed=SEED))
            parts = Parts(pipeline, case, batch["text_embedding"][0, : TEXT[0]])
            calls = ", ".join(
                f"{kind.role} {count}x{kind.samples}{' with a graph' if kind.graph else ''}"
                for kind, count in sorted(case.least.items())
            )
            print(f"{name}: {calls}", flush=True)
            runtime = build(folder / f"run-{number}", pipeline, data[case.on_trajectories], case)
            least, fast = measure(case, runtime, batch, parts, args.iterations)
            missed["evaluations"] += [] if least else [name]
            missed["time"] += [] if fast else [name]
    print(f"\nthe least network evaluations in every iteration: {_verdict(missed['evaluations'])}")
    print(f"time at most {TIME_TARGET:.2f} of the sum of the parts: {_verdict(missed['time'])}")
    return 1 if any(missed.values()) else 0


def _verdict(missed: list[str]) -> str:
    return f"NO: {', '.join(missed)}" if missed else "yes"


if __name__ == "__main__":
    sys.exit(main())
