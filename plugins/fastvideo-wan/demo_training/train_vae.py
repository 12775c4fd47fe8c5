"""Trains the demo's autoencoder: `python plugins/fastvideo-wan/demo_training/train_vae.py OUT`, one CPU thread.

It sees clips of the demo's kind, but of other seeds, after the same h264 as the demo's own. OUT becomes a diffusers folder with
float16 weights; what lies in `fastvideo_wan/demo/vae` was made so.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from torch.optim import AdamW

from fastvideo_data.video_files import read_frames, write_video
from fastvideo_tools.demo.clips import CONTENTS, render
from fastvideo_wan.demo.family import SIZE

NOISE = 0.1
EDGE_WEIGHT = 5.0


def make_clips(count: int, *, seed: int) -> Tensor:
    """Clips as `preprocess` sees them, uint8 [N, 3, T, H, W]: through an mp4 file and back."""
    clips = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            path = Path(folder) / "clip.mp4"
            write_video(path, render(CONTENTS[number % len(CONTENTS)], SIZE, rng), SIZE.fps)
            clips.append(torch.from_numpy(read_frames(path)))
    return torch.stack(clips).permute(0, 4, 1, 2, 3).contiguous()


class Muon:
    """Momentum whose update of every kernel, as the matrix [out, everything else], is made orthogonal (Jordan et al. 2024)."""

    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.95) -> None:
        self.parameters = parameters
        self.momentum = momentum
        self.buffers = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for parameter, buffer in zip(self.parameters, self.buffers, strict=True):
            assert parameter.grad is not None
            buffer.lerp_(parameter.grad, 1 - self.momentum)
            update = parameter.grad.lerp(buffer, self.momentum).flatten(1)
            rows, columns = update.shape
            parameter.add_(orthogonal(update).view_as(parameter), alpha=-lr * max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest half-orthogonal matrix, by Newton-Schulz steps of degree five; singular values end near 1."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def edge_weights(video: Tensor) -> Tensor:
    """1 on plain areas, more where the picture changes, [B, 1, T, H, W]; video in [-1, 1]."""
    across = (video[..., :, 2:] - video[..., :, :-2]).abs().amax(1, keepdim=True)
    down = (video[..., 2:, :] - video[..., :-2, :]).abs().amax(1, keepdim=True)
    weights = torch.ones_like(video[:, :1])
    weights[..., :, 1:-1] += EDGE_WEIGHT * across
    weights[..., 1:-1, :] += EDGE_WEIGHT * down
    return weights


def to_video(clips: Tensor) -> Tensor:
    return clips.float() / 127.5 - 1.0


@torch.no_grad()
def psnr(vae: AutoencoderKLWan, clips: Tensor) -> float:
    """Mean over clips of the peak signal-to-noise ratio in dB."""
    values = []
    for part in clips.split(32):
        video = to_video(part)
        decoded = vae.decode(vae.encode(video).latent_dist.mode(), return_dict=False)[0].clamp(-1, 1)
        values.append(10 * torch.log10(4 / (decoded - video).square().flatten(1).mean(1)))
    return float(torch.cat(values).mean())


def new_vae(**moments: list[float]) -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **moments,
    )


def train(
    steps: int, batch_size: int, clips: int, *, seed: int, start: Path | None, constant: float
) -> AutoencoderKLWan:
    """The mean of the weights over the last part of the run.

    Args:
        start: folder of an autoencoder to go on with.
        constant: fraction of the steps before the learning rate starts to fall.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data, held_out = make_clips(clips, seed=1000 + seed), make_clips(96, seed=2000 + seed)
    vae = new_vae()
    if start is not None:
        vae.load_state_dict(AutoencoderKLWan.from_pretrained(start, torch_dtype=torch.float32).state_dict())
    kernels = [p for p in vae.parameters() if p.ndim >= 2 and p.shape[0] > 1 and p[0].numel() > 1]
    others = [p for p in vae.parameters() if all(p is not kernel for kernel in kernels)]
    muon, adam = Muon(kernels), AdamW(others, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0)
    average = {name: value.clone() for name, value in vae.state_dict().items()}
    started = time.monotonic()
    for step in range(1, steps + 1):
        rate = min(1.0, step / 50) * min(1.0, (1 - (step - 1) / steps) / (1 - constant))
        video = to_video(data[torch.randint(len(data), (batch_size,), generator=generator)])
        mean = vae.encode(video).latent_dist.mode()
        latents = mean + NOISE * torch.randn(mean.shape, generator=generator)
        error = vae.decode(latents, return_dict=False)[0] - video
        weights = edge_weights(video)
        loss = (weights * (error.square() + 0.1 * error.abs())).mean() + 1e-3 * mean.square().mean()
        vae.zero_grad()
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = 2e-3 * rate
        adam.step()
        muon.step(0.02 * rate)
        if step > steps - 100:
            for name, value in vae.state_dict().items():
                average[name].lerp_(value, max(0.03, 1 / (step - steps + 100)))
        if step % 50 == 0 or step == steps:
            elapsed = time.monotonic() - started
            print(f"{step} loss {loss:.4f} held-out {psnr(vae, held_out):.2f} dB {elapsed:.0f} s", flush=True)
    vae.load_state_dict(average)
    print(f"averaged: held-out {psnr(vae, held_out):.2f} dB")
    with torch.no_grad():
        latents = torch.cat([vae.encode(to_video(part)).latent_dist.mode() for part in data[:768].split(32)])
    mean, std = latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))
    finished = new_vae(latents_mean=mean.tolist(), latents_std=std.tolist())
    finished.load_state_dict(average)
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--clips", type=int, default=3072)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--constant", type=float, default=0.5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vae = train(args.steps, args.batch_size, args.clips, seed=args.seed, start=args.start, constant=args.constant)
    vae.to(torch.float16).save_pretrained(args.out)


if __name__ == "__main__":
    main()
