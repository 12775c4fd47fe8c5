"""The toy family: vectors instead of videos, a small MLP instead of a transformer, every primitive real."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fastvideo_core.adapter import AttentionKind, LatentsSource
from fastvideo_core.batch import TrainingBatch
from fastvideo_core.components import ModelComponents
from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.sections import PipelineConfig
from fastvideo_core.distributed import context
from fastvideo_core.flow_adapter import FlowMatchingAdapter
from fastvideo_core.rng import stream_seed
from fastvideo_core.roles import RoleHandle, RoleManager


class ToyConfig(PipelineConfig):
    """The toy family's `pipeline_config`."""

    dim: int = Field(default=2, ge=1, description="Dimensions of a sample")
    width: int = Field(default=16, ge=1, description="Hidden width of the network")
    num_samples: int = Field(default=64, ge=1, description="Samples of the toy data set")
    mean: float = Field(default=1.7, description="Mean of the toy data")
    std: float = Field(default=0.6, ge=0, description="Standard deviation of the toy data")


class ToyNetwork(nn.Module):
    """v(x_t, sigma, condition) of vectors: [B, D], [B], [B, 1] -> [B, D]."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 2, width), nn.SiLU(), nn.Linear(width, dim))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([x, sigma[:, None], condition], dim=1))
        return out


class ToyAdapter(FlowMatchingAdapter):
    """All primitives over `ToyNetwork`; the negative conditioning is 0, the conditioning 1."""

    def prepare_batch(
        self,
        raw_batch: Any,
        *,
        current_vsa_sparsity: float = 0.0,
        latents_source: LatentsSource = "data",
        generator: torch.Generator | None = None,
    ) -> TrainingBatch:
        latents = raw_batch["vae_latent"].to(context.device())
        if latents_source == "zeros":
            latents = torch.zeros_like(latents)
        ones = latents.new_ones(len(latents), 1)
        return TrainingBatch(latents, {"condition": ones}, {"condition": torch.zeros_like(ones)})

    def predict_noise(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: AttentionKind = "dense",
    ) -> Tensor:
        conditioning = batch.conditioning if conditional else batch.negative_conditioning
        assert conditioning is not None
        out: Tensor = handle.modules["transformer"](noisy_latents, self.sigma(t), conditioning["condition"])
        return out


class ToyData:
    """An endless, resumable stream of Gaussian samples; a pure function of (seed, position, rank)."""

    def __init__(self, config: ToyConfig, *, seed: int, batch_size: int) -> None:
        generator = torch.Generator().manual_seed(stream_seed(seed, "toy data"))
        self._samples = config.mean + config.std * torch.randn(config.num_samples, config.dim, generator=generator)
        self._batch_size = batch_size
        self._position = 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            world = context.world_size()
            start = (self._position * world + context.rank()) * self._batch_size
            index = torch.arange(start, start + self._batch_size) % len(self._samples)
            self._position += 1
            yield {"vae_latent": self._samples[index]}

    def state_dict(self) -> dict[str, int]:
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._position = state["position"]


def build_toy_components(cfg: RunConfig) -> ModelComponents:
    """A network per role (equal weights for equal `path`s), the adapter, and Gaussian data."""
    config = cfg.pipeline_config
    assert isinstance(config, ToyConfig)
    roles = {}
    for name in cfg.family_roles(cfg.recipe.family):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(cfg.training.seed, cfg.roles[name].path))
            network = ToyNetwork(config.dim, config.width).to(context.device())
        roles[name] = RoleHandle(
            name,
            {"transformer": network},
            family=cfg.recipe.family,
            trainable=cfg.roles[name].trainable,
            block_classes=(nn.Linear,),
        )
    data = ToyData(config, seed=cfg.training.seed, batch_size=cfg.training.train_batch_size)
    return ModelComponents(RoleManager(roles), ToyAdapter(config.flow_shift or 1.0), dataloader=data)
