"""What the trainer costs: its finetune step against a hand-written loop of the same operations, on a tiny Wan.

Both run in this process and take turns, so that whatever else the machine does slows both alike. Batches are in memory
already; reading them is loader.py's subject.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import WanTransformer3DModel
from torch import Tensor

from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.runtime import DistillRuntime, build_runtime_from_config
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_data.data_set import DataSet
from fastvideo_data.schema import encode_tensor, key_value_metadata, t2v_schema, write_part
from fastvideo_testing.tracker import InMemoryTracker
from fastvideo_wan.tiny import write_tiny_pipeline

TARGET = 1.05
SEED = 0
LATENT, TEXT = (16, 5, 8, 8), (16, 64)
TEXT_LENGTH = 512
FLOW_SHIFT = 3.0
LEARNING_RATE, BETAS, EPSILON, MAX_GRAD_NORM = 1e-4, (0.9, 0.999), 1e-8, 1.0
SIZES = {"num_layers": 4, "num_heads": 4, "head_dim": 32, "ffn_dim": 256, "text_dim": TEXT[1], "flow_shift": FLOW_SHIFT}


class HandWritten:
    """The same training step without any framework: what somebody would write for this one case.

    Args:
        pipeline: folder of the tiny Wan.
        batch: the raw batch that every step trains on.
    """

    def __init__(self, pipeline: Path, batch: dict[str, Any]) -> None:
        self.model = WanTransformer3DModel.from_pretrained(pipeline, subfolder="transformer").train()
        self.latent, self.text = batch["vae_latent"], batch["text_embedding"]
        self.lengths = batch["text_embedding_length"]
        config = AutoencoderConfig.read(pipeline)
        self.mean, self.std = config.mean, config.std
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, LEARNING_RATE, BETAS, EPSILON, weight_decay=0.0)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda _: 1.0)
        streams = RandomStreams(SEED)  # for the seeds: the numbers that the method draws
        self.timestep_stream, self.noise_stream = streams.local("timestep"), streams.local("noise")

    def step(self) -> Tensor:
        """One optimizer step; returns its loss."""
        x0 = (self.latent.float() - self.mean) / self.std
        text = torch.zeros(len(x0), TEXT_LENGTH, self.text.shape[-1])
        for row, length in enumerate(self.lengths.tolist()):
            text[row, :length] = self.text[row, :length]
        u = torch.rand(len(x0), generator=self.timestep_stream)
        sigma = FLOW_SHIFT * u / (1 + (FLOW_SHIFT - 1) * u)
        noise = torch.randn(x0.shape, generator=self.noise_stream)
        level = sigma.view(-1, 1, 1, 1, 1)
        noisy = (1 - level) * x0 + level * noise
        velocity = self.model(
            hidden_states=noisy, timestep=sigma * 1000, encoder_hidden_states=text, return_dict=False
        )[0]
        loss = ((velocity - (noise - x0)) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


@dataclass(frozen=True)
class AutoencoderConfig:
    """The latents' statistics, [1, 16, 1, 1, 1] each."""

    mean: Tensor
    std: Tensor

    @classmethod
    def read(cls, pipeline: Path) -> AutoencoderConfig:
        config = yaml.safe_load((pipeline / "vae" / "config.json").read_text(encoding="utf-8"))
        mean, std = (torch.tensor(config[f"latents_{name}"]).view(1, -1, 1, 1, 1) for name in ("mean", "std"))
        return cls(mean, std)


@dataclass
class Clock:
    """Milliseconds per step of the rounds: on the wall, and of this process's CPU time."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    _started: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self._started = (time.perf_counter(), time.process_time())

    def stop(self, steps: int) -> None:
        wall, cpu = self._started
        self.wall.append((time.perf_counter() - wall) * 1000 / steps)
        self.cpu.append((time.process_time() - cpu) * 1000 / steps)


class TurnTaking:
    """A dataloader for the trainer that lets the other loop run between two rounds of the trainer's steps.

    Asking for a batch is where a step begins, so that between two rounds nothing of the trainer's is missed, and its
    start and end, which a run has once, are not counted.

    Args:
        batch: given again and again.
        other: the hand-written loop.
        rounds: how often each has its turn.
        steps: steps of a turn.
    """

    def __init__(self, batch: dict[str, Any], other: HandWritten, *, rounds: int, steps: int) -> None:
        self.trainer, self.hand_written = Clock(), Clock()
        self._batch, self._other = batch, other
        self._rounds, self._steps = rounds, steps

    @property
    def needed_steps(self) -> int:
        """Steps that the trainer must run; the last one ends the last round."""
        return self._rounds * self._steps + 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(self.needed_steps):
            if index % self._steps == 0:
                if index:
                    self.trainer.stop(self._steps)
                if index == self._rounds * self._steps:
                    yield self._batch
                    return
                self.hand_written.start()
                for _ in range(self._steps):
                    self._other.step()
                self.hand_written.stop(self._steps)
                self.trainer.start()
            yield self._batch


def write_data(folder: Path) -> Path:
    """A data set of one row."""
    generator = torch.Generator().manual_seed(SEED)
    row: dict[str, object] = {"id": "0", "file_name": "0.mp4", "caption": "a caption", "media_type": "video"}
    row |= {"width": 64, "height": 64, "num_frames": LATENT[1], "duration_sec": 1.0, "fps": 16.0}
    row |= encode_tensor("vae_latent", torch.randn(LATENT, generator=generator))
    row |= encode_tensor("text_embedding", torch.randn(TEXT, generator=generator))
    folder.mkdir()
    write_part(folder / "part.parquet", [row], t2v_schema(), key_value_metadata(normalised=False, settings={}))
    return folder


def build_runtime(folder: Path, pipeline: Path, data: Path, *, logging_steps: int) -> DistillRuntime:
    """The finetune run, as the command line builds it."""
    run = {
        "recipe": {"family": "wan", "method": "finetune"},
        "roles": {"student": {"path": str(pipeline), "trainable": True}},
        "training": {
            "seed": SEED,
            "output_dir": str(folder / f"run-{logging_steps}"),
            "data_path": str(data),
            "max_train_steps": 10**6,
            "learning_rate": LEARNING_RATE,
            "betas": list(BETAS),
            "adam_epsilon": EPSILON,
            "max_grad_norm": MAX_GRAD_NORM,
            "logging_steps": logging_steps,
        },
    }
    path = folder / f"run-{logging_steps}.yaml"
    path.write_text(yaml.safe_dump(run), encoding="utf-8")
    registry = PluginRegistry()
    return build_runtime_from_config(load_run_config(path, registry), registry)


def largest_loss_difference(runtime: DistillRuntime, other: HandWritten, batch: dict[str, Any], steps: int) -> float:
    """Over the first steps from equal weights and seeds."""
    trainer = DistillTrainer(runtime.training_args, config={})
    trainer.tracker.finish()
    tracker = trainer.tracker = InMemoryTracker()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.run(runtime.method, [batch], steps)
    losses = [metrics["total_loss"] for _, metrics in tracker.steps]
    expected = [float(other.step()) for _ in range(steps)]
    assert len(losses) == steps
    return max(abs(loss - wanted) for loss, wanted in zip(losses, expected, strict=True))


def measure(runtime: DistillRuntime, other: HandWritten, batch: dict[str, Any], rounds: int, steps: int) -> TurnTaking:
    """The clocks of both loops after a first tenth of the rounds to warm up."""
    for count in (max(1, rounds // 10), rounds):
        turns = TurnTaking(batch, other, rounds=count, steps=steps)
        trainer = DistillTrainer(runtime.training_args, config={})
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.run(runtime.method, turns, turns.needed_steps, callbacks=runtime.callbacks)
    return turns


def control(first: HandWritten, second: HandWritten, batch: dict[str, Any], rounds: int, steps: int) -> TurnTaking:
    """The clocks of the hand-written loop against another one of itself: what this machine's noise makes of 1."""
    turns = TurnTaking(batch, first, rounds=rounds, steps=steps)
    for _ in turns:
        second.step()
    return turns


def report(title: str, turns: TurnTaking) -> float:
    """Prints the medians; returns the ratio on the wall, the median over the rounds' own ratios.

    The two turns of a round are neighbours in time, so that their ratio feels the machine's other work least.
    """
    ratios = []
    for clock, of in (("wall", "wall clock"), ("cpu", "CPU time")):
        trainer: list[float] = getattr(turns.trainer, clock)
        plain: list[float] = getattr(turns.hand_written, clock)
        ratios.append(statistics.median(one / other for one, other in zip(trainer, plain, strict=True)))
        medians = f"{statistics.median(plain):>14.2f}{statistics.median(trainer):>10.2f}"
        print(f"{title:<28}{of:<12}{medians}{ratios[-1]:>8.3f}", flush=True)
    return ratios[0]


def main() -> int:
    """Run the benchmark; 0 when the target is met, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="turns of each loop (default: 200)")
    parser.add_argument("--steps", type=int, default=1, help="steps of a turn (default: 1)")
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

        quiet = build_runtime(folder, pipeline, data, logging_steps=10**6)
        spoken = build_runtime(folder, pipeline, data, logging_steps=1)
        difference = largest_loss_difference(spoken, HandWritten(pipeline, batch), batch, steps=20)
        other = HandWritten(pipeline, batch)
        parameters = sum(p.numel() for p in other.parameters)
        print(f"tiny Wan, {parameters:,} parameters, latents {[1, *LATENT]}, text {list(TEXT)} padded to {TEXT_LENGTH}")
        print(f"{args.rounds} turns of {args.steps} steps each, {args.threads} thread(s); median ms per step")
        print(f"largest difference of the losses over 20 steps at the same seed: {difference:.3g}\n")
        print(f"{'':<28}{'':<12}{'hand-written':>14}{'trainer':>10}{'ratio':>8}")
        ratio = report("trainer, no logging", measure(quiet, other, batch, args.rounds, args.steps))
        report("trainer, logs every step", measure(spoken, other, batch, args.rounds, args.steps))
        again = HandWritten(pipeline, batch)
        report("control: hand-written again", control(other, again, batch, args.rounds, args.steps))
    met = ratio <= TARGET and math.isclose(difference, 0, abs_tol=1e-5)
    print(
        f"\nthe trainer's step costs at most {TARGET} of the hand-written one, with the same losses: {'yes' if met else 'NO'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
