"""Does DMD2 help: how far 4-step samples are from the 50-step teacher's, before and after distillation.

    python benchmarks/few_step_distance.py [--training-seeds 0 1] [--sampling-seeds 0 1 2] [--keep DIR]

From one tiny Wan and one procedural data set of captioned latents: `fastvideo-distill` trains a teacher (finetune), then
distils 4-step students from it (dmd2, one for each training seed). Printed is the sliced Wasserstein distance, within
each caption, to samples that the teacher makes in 50 steps from other noise.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fastvideo_core.contracts.family import open_family
from fastvideo_core.diffusion import flow
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.dispatch.role_weights import load_role
from fastvideo_core.dispatch.trained_model import open_trained_model
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.schema import encode_tensor, key_value_metadata, t2v_schema, write_part
from fastvideo_diffusers.text import pad_text
from fastvideo_wan.folder import open_folder
from fastvideo_wan.network import predict_velocity
from fastvideo_wan.schedule import many_step_scheduler
from fastvideo_wan.tiny import write_tiny_pipeline

MARGIN = 0.8
"""The student's distance may be at most this part of the teacher's 4 steps on its pipeline's own levels, on every seed; and it
must be smaller than that of the teacher's 4 steps on the student's levels."""

TEACHER_STEPS, STUDENT_STEPS = 50, (1000, 750, 500, 250)
ROWS, PER_CAPTION, PROJECTIONS = 3072, 192, 512
LATENT = (16, 1, 4, 4)
FLOW_SHIFT = 3.0
SIZES = {"num_layers": 2, "num_heads": 4, "head_dim": 20, "ffn_dim": 160, "text_dim": 32, "flow_shift": FLOW_SHIFT}

# --- data -------------------------------------------------------------------------------------------------------------

CAPTIONS = {
    "waves side by side, from left to right": (0, 1),
    "layers on top of each other": (1, 0),
    "a slanted swell over both edges, like rain in the wind": (1, 1),
}
"""Caption -> waves per height and width of the latent."""

WAVE, SPREAD = 0.7, 0.8


def clips(caption: int, number: int, generator: torch.Generator) -> Tensor:
    """Latents [number, 16, 1, 4, 4] of one caption: its pattern, and as much detail that no caption tells.

    A pattern is a wave in the caption's direction times a texture over the channels. The detail has about the spread of
    real latents: four long steps of a many-step model lose a good part of it (they end at the mean of what could be),
    which is what a few-step student has to put right.
    """
    down, right = list(CAPTIONS.values())[caption]
    channels, _, height, width = LATENT
    fixed = torch.Generator().manual_seed(100 + caption)
    texture = torch.randn(channels, 1, 1, 1, generator=fixed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    wave = math.sqrt(2) * texture * torch.cos(2 * math.pi * (down * y / height + right * x / width))
    return WAVE * wave + SPREAD * torch.randn(number, *LATENT, generator=generator)


def encode_captions(pipeline: Path) -> list[Tensor]:
    """The pipeline's own text embeddings, [L, D] each."""
    encoder = open_family("wan", PluginRegistry(), "encoder")
    encoded: list[Tensor] = encoder.encoder(str(pipeline), device=torch.device("cpu")).encode_texts(list(CAPTIONS))
    return encoded


def write_data(folder: Path, embeddings: Sequence[Tensor]) -> None:
    """The data set, in the format of `fastvideo-distill preprocess`."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for caption, (text, embedding) in enumerate(zip(CAPTIONS, embeddings, strict=True)):
        for number, latent in enumerate(clips(caption, ROWS // len(CAPTIONS), generator)):
            row: dict[str, object] = {"id": f"{caption}-{number}", "file_name": "", "caption": text}
            row |= {"media_type": "video", "width": LATENT[3] * 8, "height": LATENT[2] * 8, "num_frames": LATENT[1]}
            row |= {"duration_sec": 1 / 16, "fps": 16.0}
            rows.append(row | encode_tensor("vae_latent", latent) | encode_tensor("text_embedding", embedding))
    folder.mkdir()
    write_part(folder / "part.parquet", rows, t2v_schema(), key_value_metadata(normalised=True, settings={}))


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


def student_run(seed: int, steps: int) -> dict[str, Any]:
    return {
        "recipe": {"family": "wan", "method": "dmd2"},
        "roles": {
            "student": {"path": "teacher", "trainable": True, "learning_rate": 2.0e-4},
            "teacher": {"path": "teacher", "trainable": False, "checkpoint_role": "student"},
            "critic": {"path": "teacher", "trainable": True, "checkpoint_role": "student", "learning_rate": 1.0e-3},
        },
        "training": {
            "seed": seed,
            "output_dir": f"student-{seed}",
            "data_path": "data",
            "max_train_steps": steps,
            "train_batch_size": 16,
            "betas": [0.0, 0.99],
            "lr_scheduler": "cosine",
            "num_height": LATENT[2] * 8,
            "num_width": LATENT[3] * 8,
            "num_latent_t": LATENT[1],
            "logging_steps": 50,
        },
        "method_config": {
            "dmd_denoising_steps": list(STUDENT_STEPS),
            "warp_denoising_step": True,
            "generator_update_interval": 4,
            "real_score_guidance_scale": 1.0,
        },
        "callbacks": {"ema": {"decay": 0.9}},
    }


def train(folder: Path, runs: dict[str, dict[str, Any]], threads: int) -> None:
    """`fastvideo-distill NAME.yaml` for each run, side by side.

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

    @classmethod
    def open(cls, path: str) -> Model:
        """As `fastvideo-distill sample` opens it: averaged weights, the schedule that the run names."""
        registry = PluginRegistry()
        trained = open_trained_model(path, registry)
        family = open_family(trained.family, registry, "sampler")
        sampler: Any = family.sampler(trained.source.base, trained.pipeline_config, device=torch.device("cpu"))
        load_role(sampler.handle, trained.source)
        base = open_folder(trained.source.base, where=path)

        def many_steps(steps: int) -> FewStepSchedule:
            scheduler = many_step_scheduler(base, FLOW_SHIFT)
            scheduler.set_timesteps(steps)
            return FewStepSchedule(tuple(1000 * float(sigma) for sigma in scheduler.sigmas[:-1]))

        assert trained.student_schedule is not None
        own = trained.student_schedule(sampler.shift_and_clamp_timestep)
        return cls(sampler.handle.modules["transformer"].eval(), many_steps, own)

    def sample(self, noise: Tensor, text: Tensor, schedule: FewStepSchedule) -> Tensor:
        """x0 [B, ...] along the ode, without guidance."""

        def predict_x0(x: Tensor, t: Tensor) -> Tensor:
            v = predict_velocity(self.network, x, t, text[: len(x)], autocast=False)
            return flow.x0_from_velocity(x, v, t / schedule.num_train_timesteps)

        return torch.cat([rollout(predict_x0, part, schedule, kind="ode") for part in noise.split(16)])


def by_caption(texts: Sequence[Tensor], seed: int, sample: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Samples [PER_CAPTION, ...] of every caption; `sample` gets noise and padded text."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for text in texts:
        noise = torch.randn(PER_CAPTION, *LATENT, generator=generator)
        drawn.append(sample(noise, pad_text(text[None], 512)[0].expand(PER_CAPTION, -1, -1)))
    return drawn


def sliced_wasserstein(ours: Sequence[Tensor], theirs: Sequence[Tensor], seed: int) -> float:
    """W1 on random lines, the mean over PROJECTIONS unit vectors and over the captions.

    Both sides have as many samples of each caption (Rabin et al. 2011; Bonneel et al. 2015).
    """
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for x, y in zip(ours, theirs, strict=True):
        lines = torch.randn(x[0].numel(), PROJECTIONS, generator=generator)
        lines /= lines.norm(dim=0)
        ordered = [(samples.flatten(1) @ lines).sort(dim=0).values for samples in (x, y)]
        distances.append(float((ordered[0] - ordered[1]).abs().mean()))
    return sum(distances) / len(distances)


def compare(
    folder: Path, texts: Sequence[Tensor], training_seeds: Sequence[int], sampling_seeds: Sequence[int]
) -> bool:
    """Prints the table; True when every student is closer by the margin on every seed."""
    with _inside(folder):
        teacher = Model.open("teacher")
        students = {seed: Model.open(f"student-{seed}") for seed in training_seeds}
    own = next(iter(students.values())).few_steps
    assert own is not None
    count = len(own)
    ways: dict[str, tuple[Model, FewStepSchedule]] = {
        f"teacher, {TEACHER_STEPS} steps, other noise": (teacher, teacher.many_steps(TEACHER_STEPS)),
        f"teacher, {count} steps, its own levels": (teacher, teacher.many_steps(count)),
        f"teacher, {count} steps, the student's levels": (teacher, own),
    }
    rivals = list(ways)[1:]
    ours = [f"student of seed {seed}, {count} steps" for seed in students]
    ways |= {name: (student, own) for name, student in zip(ours, students.values(), strict=True)}
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
    print(f"\nsliced Wasserstein distance to the teacher's {TEACHER_STEPS}-step samples, by sampling seed")
    print(f"{'':<40}" + "".join(f"{seed:>9}" for seed in sampling_seeds))
    for name, values in distances.items():
        print(f"{name:<40}" + "".join(f"{value:>9.4f}" for value in values))
    worst = [
        max(value / rival for name in ours for value, rival in zip(distances[name], distances[other], strict=True))
        for other in rivals
    ]
    print(
        f"\nlargest ratio of a student's distance to the teacher's in {count} steps on its own levels: {worst[0]:.3f}"
    )
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
    """Run the benchmark; 0 when the students are closer, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
        train(folder, {f"student-{seed}": student_run(seed, 600) for seed in args.training_seeds}, args.threads)
        return 0 if compare(folder, texts, args.training_seeds, args.sampling_seeds) else 1


if __name__ == "__main__":
    sys.exit(main())
