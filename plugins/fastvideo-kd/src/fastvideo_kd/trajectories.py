"""A teacher's samplings, state by state: from seeded noise in Euler steps of the guided network, into parquet files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.diffusion.flow import move_along
from fastvideo_core.launch.stdio import say
from fastvideo_data.preprocessing.progress import progress
from fastvideo_kd.stored_steps import kept_steps, solver_timesteps, student_options, student_timesteps
from fastvideo_kd.teacher import Teacher, open_prompts, open_teacher
from fastvideo_kd.trajectory_files import TrajectoryFiles


def write_trajectories(args: argparse.Namespace, *, rank: int, size: int) -> None:
    """Samples this process's share of the prompts, as far as the output does not hold them, and writes them.

    Every trajectory depends on its prompt, the teacher and the options alone: not on how many processes there are, nor on
    which prompts are sampled beside it (but for rounding, where the network's own depends on the batch).

    Args:
        rank, size: of the processes; each takes every size-th prompt.

    Raises:
        UserError: the options, the teacher or the prompts cannot be used, or the output holds trajectories of others.
    """
    teacher = open_teacher(args)
    prompts = open_prompts(args, teacher)
    shift = teacher.adapter.shift_and_clamp_timestep
    timesteps = solver_timesteps(shift, args.steps, teacher.adapter.num_train_timesteps)
    wanted = timesteps[:-1] if args.all_states else student_timesteps(student_options(args), shift)
    kept = kept_steps(timesteps, wanted)
    files = TrajectoryFiles(args, teacher, prompts, [timesteps[index] for index in kept], rank=rank)
    missing = files.missing(range(rank, prompts.num_samples, size))
    if files.samples:
        say(f"{args.output}: {files.samples} of {prompts.num_samples} prompts are there already", flush=True)
    batches = [missing[start : start + args.batch_size] for start in range(0, len(missing), args.batch_size)]
    for rows in progress(batches, "sampling"):
        raw_batch = prompts.batch(rows)
        batch = teacher.adapter.prepare_batch(raw_batch, latents_source="zeros")
        noise = noise_of([info["id"] for info in raw_batch["info"]], batch.latents, args.seed)
        states = sample_states(teacher, batch, noise, timesteps, kept, guidance_scale=args.guidance_scale)
        stored = [teacher.adapter.unpack_latents(state.to(batch.latents.device), batch) for state in states]
        files.add(raw_batch, {name: torch.stack([state[name] for state in stored], dim=1) for name in stored[0]})
    files.flush()
    if rank == 0:
        shown = ", ".join(f"{timesteps[index]:g}" for index in kept)
        say(f"{args.output}: trajectories of {teacher.source} ({teacher.weights}), states at {shown} and the clean end")


def noise_of(ids: Sequence[str], latents: Tensor, seed: int) -> Tensor:
    """The noise [B, ...] of samples by their ids, drawn on the CPU: the same in every batch, process and on every device."""
    drawn = [
        torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(stream_seed(seed, f"trajectory/{name}")))
        for name in ids
    ]
    return torch.stack(drawn).to(latents.device)


@torch.no_grad()
def sample_states(
    teacher: Teacher,
    batch: TrainingBatch,
    noise: Tensor,
    timesteps: Sequence[float],
    kept: Sequence[int],
    *,
    guidance_scale: float,
) -> list[Tensor]:
    """The states [B, ...] before the kept steps, then the clean end, on the CPU: Euler steps of dx/ds = v, guided.

    Args:
        noise: [B, ...] what the sampling starts from.
        timesteps: where each step begins, and 0.
        guidance_scale: w of u + w (c - u).
    """
    x: Tensor = noise
    states = []
    for index, t in enumerate(timesteps[:-1]):
        if index in kept:
            states.append(x.cpu())
        at = torch.full((len(x),), t, dtype=torch.float32, device=x.device)
        x0: Any = teacher.adapter.predict_x0_guided(teacher.handle, x, at, batch, guidance_scale=guidance_scale)
        x = move_along(x, x0, t, timesteps[index + 1])
    return [*states, x.cpu()]
