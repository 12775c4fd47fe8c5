"""Does distillation help, and which method most: how far 4-step samples are from the 50-step teacher's.

    python benchmarks/few_step_distance.py [--students NAME ...] [--training-seeds 0 1] [--sampling-seeds 0 1 2] [--keep DIR]

From one tiny Wan and one procedural data set of captioned latents: `fastvideo-distill` trains a teacher (finetune), then
distils 4-step students from it by every method of STUDENTS, one for each training seed, each with EVALUATIONS network
evaluations. Printed is the sliced Wasserstein distance, within each caption, to samples that the teacher makes in 50 steps from
other noise.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from captioned_latents import CAPTIONS, LATENT, clips, encode_captions, sliced_wasserstein, write_data
from torch import Tensor

from fastvideo_core.contracts.family import open_family
from fastvideo_core.diffusion import flow
from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind, rollout
from fastvideo_core.dispatch.role_weights import load_role
from fastvideo_core.dispatch.trained_model import open_trained_model
from fastvideo_core.registry import PluginRegistry
from fastvideo_diffusers.scheduler_shift import shifted_scheduler
from fastvideo_diffusers.text import pad_text
from fastvideo_wan.folder import open_folder
from fastvideo_wan.network import predict_velocity
from fastvideo_wan.tiny import write_tiny_pipeline

MARGIN = 0.8
"""The student's distance may be at most this part of the teacher's 4 steps on its pipeline's own levels, on every seed; and it
must be smaller than that of the teacher's 4 steps on the student's levels."""

TEACHER_STEPS, STUDENT_STEPS = 50, (1000, 750, 500, 250)
PER_CAPTION = 192
TRAJECTORIES = 384
SHAPE = {"num_height": LATENT[2] * 8, "num_width": LATENT[3] * 8, "num_latent_t": LATENT[1]}
FLOW_SHIFT = 3.0
SIZES = {"num_layers": 2, "num_heads": 4, "head_dim": 20, "ffn_dim": 160, "text_dim": 32, "flow_shift": FLOW_SHIFT}

# --- training ---------------------------------------------------------------------------------------------------------


def teacher_run(steps: int) -> dict[str, Any]:
    return {
        "recipe": {"family": "wan", "method": "finetune"},
        "roles": {"student": {"path": "base", "trainable": True}},
        "training": {
            "output_dir": "teacher",
            "data_path": "data",
            "max_train_steps": steps,
            "train_batch_size": 16,
            "learning_rate": 3.0e-3,
            "betas": [0.9, 0.99],
            "lr_scheduler": "cosine",
            "lr_warmup_steps": 20,
            "logging_steps": 100,
        },
        "callbacks": {"ema": {"decay": 0.98}},
    }


EVALUATIONS = 2400
"""Of a network on a batch, for each student: the teacher's and the critic's too, forward ones and those with a graph alike;
one in forward mode counts as 4, which is what it takes."""


@dataclass(frozen=True)
class Stage:
    """A run of one method.

    Args:
        evaluations: of networks in one iteration, on average.
        before: of all that must be there before the first.
        settings: `method_config`.
        training: beside what all students have.
        trajectories: trains on the teacher's instead of the data.
    """

    method: str
    evaluations: float
    settings: dict[str, Any]
    learning_rate: float
    sampler_kind: str
    betas: tuple[float, float]
    before: float = 0.0
    trajectories: bool = False
    roles: tuple[str, ...] = ("teacher",)

    def steps(self, evaluations: float) -> int:
        """As many iterations as so many evaluations allow."""
        return int((evaluations - self.before) / self.evaluations)


# A rollout of 4 steps has 1.5 calls before the one that counts, and every fourth iteration updates the student.
DMD2 = Stage(
    "dmd2",
    1.5 + 1 + 1 + (1 + 1) / 4,
    {
        "dmd_denoising_steps": list(STUDENT_STEPS),
        "warp_denoising_step": True,
        "generator_update_interval": 4,
        "real_score_guidance_scale": 1.0,
    },
    learning_rate=2.0e-4,
    sampler_kind="ode",
    betas=(0.0, 0.99),
    roles=("teacher", "critic"),
)
KD = Stage(
    "kd",
    1,
    {"denoising_steps": list(STUDENT_STEPS)},
    learning_rate=1.0e-3,
    sampler_kind="ode",
    betas=(0.9, 0.99),
    before=48 * TRAJECTORIES / 16,
    trajectories=True,
    roles=(),
)
CONSISTENCY = Stage(
    "consistency",
    1 + 1 + 1,
    {
        "denoising_steps": list(STUDENT_STEPS),
        "warp_denoising_step": True,
        "solver_steps": 48,
        "solver": "euler",
        "teacher_guidance_scale": 1.0,
    },
    learning_rate=5.0e-4,
    sampler_kind="sde",
    betas=(0.9, 0.99),
)
HEUN = replace(CONSISTENCY, evaluations=2 + 1 + 1, settings={**CONSISTENCY.settings, "solver": "heun"})
RCM_WARMUP = 100
RCM = Stage(
    "rcm",
    # The student's iterations have the consistency term (teacher, 4 in forward mode, 1), the critic's have not.
    1.5 + 1 + (6 + 1 + 1) / 4 + 3 / 4,
    {**DMD2.settings, "tangent_warmup_steps": RCM_WARMUP},
    learning_rate=2.0e-4,
    sampler_kind="sde",
    betas=(0.0, 0.99),
    before=6 * RCM_WARMUP,
    roles=("teacher", "critic"),
)
SCM = replace(
    RCM,
    evaluations=6,
    before=0.0,
    settings={
        **{name: RCM.settings[name] for name in ("dmd_denoising_steps", "warp_denoising_step", "tangent_warmup_steps")},
        "real_score_guidance_scale": 1.0,
        "dmd_weight": 0.0,
    },
    roles=("teacher",),
)
STUDENTS: dict[str, tuple[tuple[Stage, float], ...]] = {
    "dmd2": ((DMD2, 1),),
    "kd": ((KD, 1),),
    "consistency-euler": ((CONSISTENCY, 1),),
    "consistency-heun": ((HEUN, 1),),
    "scm": ((SCM, 1),),
    "rcm": ((RCM, 1),),
    "consistency-then-dmd2": ((CONSISTENCY, 1 / 2), (DMD2, 1 / 2)),
    "kd-then-dmd2": ((KD, 2 / 3), (DMD2, 1 / 3)),
}
"""The stages of each, one after the other, with their shares of the evaluations."""


def stage_run(name: str, number: int, seed: int) -> dict[str, Any]:
    """The run of a stage; its student begins as the teacher, or where the stage before ended."""
    stage, share = STUDENTS[name][number]
    steps = stage.steps(EVALUATIONS * share)
    roles: dict[str, Any] = {
        "student": {"path": output_of(name, number - 1, seed) if number else "teacher", "trainable": True},
        "teacher": {"path": "teacher", "trainable": False, "checkpoint_role": "student"},
        "critic": {"path": "teacher", "trainable": True, "checkpoint_role": "student", "learning_rate": 1.0e-3},
    }
    if number:
        roles["student"]["checkpoint_role"] = "student"
    if stage.method == "rcm":
        steps += RCM_WARMUP if stage.before else 0
    return {
        "recipe": {"family": "wan", "method": stage.method},
        "roles": {role: roles[role] for role in ("student", *stage.roles)},
        "training": {
            "seed": seed,
            "output_dir": output_of(name, number, seed),
            "data_path": "trajectories" if stage.trajectories else "data",
            "max_train_steps": steps,
            "train_batch_size": 16,
            "learning_rate": stage.learning_rate,
            "betas": list(stage.betas),
            "lr_scheduler": "cosine",
            "logging_steps": 50,
            **({} if stage.trajectories else SHAPE),
        },
        "pipeline_config": {"sampler_kind": stage.sampler_kind},
        "method_config": stage.settings,
        "callbacks": {"ema": {"decay": 0.9}},
    }


def output_of(name: str, number: int, seed: int) -> str:
    return f"{name}-{number + 1}-{seed}"


def make_trajectories(folder: Path) -> None:
    """Of the teacher, as many of each caption, with the states of the student's schedule."""
    lines = [caption for caption in CAPTIONS for _ in range(TRAJECTORIES // len(CAPTIONS))]
    (folder / "prompts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    size = {"height": LATENT[2] * 8, "width": LATENT[3] * 8, "num-frames": LATENT[1]}
    given = {"model": "teacher", "prompts": "prompts.txt", "output": "trajectories", "steps": 48, "guidance-scale": 1}
    given |= {"batch-size": 16, "samples-per-file": 64, "denoising-steps": ",".join(map(str, STUDENT_STEPS)), **size}
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    print("$ fastvideo-distill trajectories", *options, flush=True)
    command = [sys.executable, "-m", "fastvideo_core", "trajectories", *options]
    subprocess.run(command, cwd=folder, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=True, capture_output=True)


def train(folder: Path, runs: dict[str, dict[str, Any]], threads: int) -> None:
    """`fastvideo-distill NAME.yaml` for each run, as many side by side as there are threads."""
    names = list(runs)
    for first in range(0, len(names), threads):
        _train_together(folder, {name: runs[name] for name in names[first : first + threads]}, threads)


def _train_together(folder: Path, runs: dict[str, dict[str, Any]], threads: int) -> None:
    """All of them at the same time.

    Raises:
        SystemExit: a run failed; its output is shown.
    """
    started = time.perf_counter()
    processes = {}
    for name, run in runs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
        print(f"$ fastvideo-distill {name}.yaml", flush=True)
        with (folder / f"{name}.log").open("w") as log:
            command = [sys.executable, "-m", "fastvideo_core", f"{name}.yaml"]
            share = {"OMP_NUM_THREADS": str(max(1, threads // len(runs))), "OMP_WAIT_POLICY": "PASSIVE"}
            environment = os.environ | share | {"HF_HUB_OFFLINE": "1"}
            processes[name] = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    failed = [name for name, process in processes.items() if process.wait()]
    for name in failed:
        print((folder / f"{name}.log").read_text(encoding="utf-8")[-4000:])
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    print(f"-> {time.perf_counter() - started:.0f} s", flush=True)


# --- samples ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A trained network, its pipeline's many-step schedules and, for a student, its own schedule."""

    network: Any
    many_steps: Callable[[int], FewStepSchedule]
    few_steps: FewStepSchedule | None
    kind: SamplerKind

    @classmethod
    def open(cls, path: str) -> Model:
        """As `fastvideo-distill sample` opens it: averaged weights, the schedule that the run names."""
        registry = PluginRegistry()
        trained = open_trained_model(path, registry)
        family = open_family(trained.family, registry, "sampler")
        sampler: Any = family.sampler(trained.source.base, trained.pipeline_config, device=torch.device("cpu"))
        load_role(sampler.handle, trained.source, family)
        base = open_folder(trained.source.base, where=path)

        def many_steps(steps: int) -> FewStepSchedule:
            scheduler = shifted_scheduler(base, FLOW_SHIFT)
            scheduler.set_timesteps(steps)
            return FewStepSchedule(tuple(1000 * float(sigma) for sigma in scheduler.sigmas[:-1]))

        assert trained.student_schedule is not None
        own = trained.student_schedule(sampler.shift_and_clamp_timestep)
        kind = trained.pipeline_config.sampler_kind
        return cls(sampler.handle.modules["transformer"].eval(), many_steps, own, kind)

    def sample(self, noise: Tensor, text: Tensor, schedule: FewStepSchedule) -> Tensor:
        """x0 [B, ...] without guidance, on the student's own schedule as its run says, else along the ode."""
        kind = self.kind if schedule is self.few_steps else "ode"
        generator = torch.Generator().manual_seed(int(noise.double().sum().abs() * 1e6) % 2**31)

        def predict_x0(x: Tensor, t: Tensor) -> Tensor:
            v = predict_velocity(self.network, x, t, text[: len(x)], autocast=False)
            return flow.x0_from_velocity(x, v, t / schedule.num_train_timesteps)

        parts = [rollout(predict_x0, part, schedule, kind=kind, generator=generator) for part in noise.split(16)]
        return torch.cat(parts)


def by_caption(texts: Sequence[Tensor], seed: int, sample: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Samples [PER_CAPTION, ...] of every caption; `sample` gets noise and padded text."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for text in texts:
        noise = torch.randn(PER_CAPTION, *LATENT, generator=generator)
        drawn.append(sample(noise, pad_text(text[None], 512)[0].expand(PER_CAPTION, -1, -1)))
    return drawn


def compare(
    folder: Path,
    texts: Sequence[Tensor],
    names: Sequence[str],
    training_seeds: Sequence[int],
    sampling_seeds: Sequence[int],
) -> bool:
    """Prints the table; True when every dmd2 student is closer by the margin on every seed."""
    with _inside(folder):
        teacher = Model.open("teacher")
        students = {
            f"{name}, seed {seed}": Model.open(output_of(name, len(STUDENTS[name]) - 1, seed))
            for name in names
            for seed in training_seeds
        }
    own = next(iter(students.values())).few_steps
    assert own is not None
    count = len(own)
    ways: dict[str, tuple[Model, FewStepSchedule]] = {
        f"teacher, {TEACHER_STEPS} steps, other noise": (teacher, teacher.many_steps(TEACHER_STEPS)),
        f"teacher, {count} steps, its own levels": (teacher, teacher.many_steps(count)),
        f"teacher, {count} steps, the student's levels": (teacher, own),
    }
    rivals = list(ways)[1:]
    for name, student in students.items():
        assert student.few_steps is not None
        ways[name] = student, student.few_steps
    distances: dict[str, list[float]] = {name: [] for name in ("the data", *ways)}
    for seed in sampling_seeds:

        def drawn(name: str, noise_seed: int) -> list[Tensor]:
            model, schedule = ways[name]
            return by_caption(texts, noise_seed, lambda noise, text: model.sample(noise, text, schedule))

        reference = drawn(next(iter(ways)), 1000 + seed)
        generator = torch.Generator().manual_seed(2000 + seed)
        data = [clips(caption, PER_CAPTION, generator) for caption in range(len(CAPTIONS))]
        distances["the data"].append(sliced_wasserstein(data, reference, seed))
        for name in ways:
            distances[name].append(sliced_wasserstein(drawn(name, 3000 + seed), reference, seed))
    print(f"\nsliced Wasserstein distance to the teacher's {TEACHER_STEPS}-step samples, by sampling seed; their mean")
    print(f"{'':<40}" + "".join(f"{seed:>9}" for seed in sampling_seeds) + f"{'mean':>9}")
    for name, values in distances.items():
        print(f"{name:<40}" + "".join(f"{value:>9.4f}" for value in (*values, sum(values) / len(values))))
    ours = [name for name in students if name.startswith("dmd2,")]
    if not ours:
        return True
    worst = [
        max(value / rival for name in ours for value, rival in zip(distances[name], distances[other], strict=True))
        for other in rivals
    ]
    print(f"\nlargest ratio of dmd2's distance to the teacher's in {count} steps on its own levels: {worst[0]:.3f}")
    print(f"and on the student's levels: {worst[1]:.3f}")
    met = worst[0] <= MARGIN and worst[1] < 1
    print(f"at most {MARGIN} and below 1, on every seed: {'yes' if met else 'NO'}")
    return met


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> int:
    """Run the benchmark; 0 when dmd2's students are closer, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), help="(default: all)")
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0, 1], help="of the students (default: 0 1)")
    parser.add_argument("--sampling-seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder that keeps runs and checkpoints")
    parser.add_argument("--threads", type=int, default=2, help="of all processes together (default: 2)")
    args, _ = parser.parse_known_args()  # `nox -s bench -- ...` gives every benchmark the same arguments
    torch.set_num_threads(args.threads)
    with contextlib.ExitStack() as stack:
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        write_tiny_pipeline(folder / "base", seed=0, **SIZES)
        texts = encode_captions(folder / "base")
        write_data(folder / "data", texts)
        train(folder, {"teacher": teacher_run(800)}, args.threads)
        chosen = {name: STUDENTS[name] for name in args.students}
        if any(stage.trajectories for stages in chosen.values() for stage, _ in stages):
            make_trajectories(folder)
        for number in range(max(map(len, chosen.values()))):
            runs = {
                output_of(name, number, seed): stage_run(name, number, seed)
                for name, stages in chosen.items()
                for seed in args.training_seeds
                if number < len(stages)
            }
            train(folder, runs, args.threads)
        return 0 if compare(folder, texts, args.students, args.training_seeds, args.sampling_seeds) else 1


if __name__ == "__main__":
    sys.exit(main())
