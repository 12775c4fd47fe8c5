"""The toy family: vectors instead of videos, an MLP or the exact velocity instead of a transformer, every primitive real."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fastvideo_core.config.base import FloatTuple, PipelineConfig, StrictModel
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import AttentionKind, LatentsSource
from fastvideo_core.contracts.batch import TrainingBatch, Trajectory
from fastvideo_core.contracts.family import ModelComponents, ModelFamily
from fastvideo_core.contracts.flow_adapter import FlowMatchingAdapter
from fastvideo_core.contracts.hidden_states import features_of
from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.distributed import context
from fastvideo_core.distributed.context import Mesh
from fastvideo_core.errors import ContractError, Problem


class Mixture(StrictModel):
    """An isotropic Gaussian mixture in any number of dimensions; one component is a Gaussian."""

    masses: FloatTuple = Field(default=(1.0,), description="Probability of each component; they sum to 1")
    means: tuple[FloatTuple, ...] = Field(
        default=((1.7, 1.7),), strict=False, description="Mean of each component, one number per dimension"
    )
    std: float = Field(default=0.6, gt=0, description="Standard deviation of every component and dimension")

    @model_validator(mode="after")
    def _fits(self) -> Mixture:
        if abs(sum(self.masses) - 1) > 1e-9 or min(self.masses) <= 0:
            raise ValueError(f"masses {list(self.masses)} must be positive and sum to 1")
        if len(self.means) != len(self.masses) or len({len(mean) for mean in self.means}) != 1:
            raise ValueError(f"means must be {len(self.masses)} lists of equal length, one for each mass")
        return self

    @property
    def dim(self) -> int:
        """Dimensions of a sample."""
        return len(self.means[0])

    def path(self, ends: Tensor, sigmas: Tensor) -> Tensor:
        """The states [B, S, D] at noise levels [S] of the paths that a perfect teacher of one Gaussian leads to `ends` [B, D].

        x_s = (1 - s) m + sqrt((1 - s)^2 std^2 + s^2) (x_0 - m) / std, the solution of dx/ds = E[noise - x0 | x].
        """
        if len(self.masses) != 1:
            raise ContractError("the paths of a mixture of several Gaussians have no closed form")
        mean, s = torch.tensor(self.means[0]), sigmas[:, None]
        spread = ((1 - s) ** 2 * self.std**2 + s**2).sqrt() / self.std
        return (1 - s) * mean + spread * (ends - mean)[:, None]

    def sample(self, size: int, generator: torch.Generator) -> Tensor:
        """Samples [size, D]."""
        component = torch.multinomial(torch.tensor(self.masses), size, replacement=True, generator=generator)
        return torch.tensor(self.means)[component] + self.std * torch.randn(size, self.dim, generator=generator)


class ToyConfig(PipelineConfig):
    """The toy family's `pipeline_config`."""

    data: Mixture = Field(default=Mixture(), description="The distribution of the data, and of the exact network")
    num_samples: int = Field(default=64, ge=1, description="Samples of the toy data set")
    width: int = Field(default=16, ge=1, description="Hidden width of a learned network")
    depth: int = Field(default=1, ge=1, description="Hidden layers of a learned network")
    padding: int = Field(default=0, ge=0, description="Further dimensions of a sample: padding, of loss weight 0")
    layout: Literal["vector", "video"] = Field(
        default="vector", description="Latents [B, D], or [B, 1, D, 1, 1] as a video's would be"
    )

    @property
    def dim(self) -> int:
        """Dimensions of a sample, padding included."""
        return self.data.dim + self.padding


class ToyNetwork(nn.Module):
    """A learned velocity of vectors: x_t [B, D], sigma [B], condition [B, 1] -> v [B, D]."""

    def __init__(self, dim: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(dim + 2, width), nn.SiLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([x, sigma[:, None], condition], dim=1))
        return out


class ExactNetwork(nn.Module):
    """The exact velocity E[noise - x0 | x_t] of a Gaussian mixture, whatever the condition; nothing to train.

    With x_t | component k ~ N((1 - s) m_k, (1 - s)^2 std^2 + s^2), the velocity is the posterior mean over components of
    (s - (1 - s) std^2) / var * (x_t - (1 - s) m_k) - m_k. Of padding it is 0.
    """

    masses: Tensor
    means: Tensor

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.std = mixture.std
        self.register_buffer("masses", torch.tensor(mixture.masses))
        self.register_buffer("means", torch.tensor(mixture.means))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        padding = x[:, self.means.shape[1] :]
        x = x[:, : self.means.shape[1]]
        s = sigma[:, None]  # [B, 1]
        variance = (1 - s) ** 2 * self.std**2 + s**2
        offset = x[:, None] - (1 - s)[:, None] * self.means  # [B, K, D]
        log_posterior = self.masses.log() - (offset**2).sum(-1) / (2 * variance)
        posterior = torch.softmax(log_posterior, dim=1)[..., None]  # [B, K, 1]
        gain = ((s - (1 - s) * self.std**2) / variance)[:, None]
        velocity = (posterior * (gain * offset - self.means)).sum(1)
        return torch.cat([velocity, torch.zeros_like(padding)], dim=1)


TRAJECTORY_TIMESTEPS = (1000.0, 875.0, 750.0, 625.0, 500.0, 375.0, 250.0, 125.0, 0.0)
"""Of the states of the toy family's trajectories; shifted, they have states too."""


class ToyAdapter(FlowMatchingAdapter):
    """All primitives over `ToyNetwork`; the negative conditioning is 0, the conditioning 1.

    Args:
        data: the distribution whose paths `stored_trajectory` gives.
    """

    def __init__(self, flow_shift: float, *, data: Mixture | None = None) -> None:
        super().__init__(flow_shift)
        self.data = Mixture() if data is None else data

    def stored_trajectory(self, raw_batch: Any) -> Trajectory:
        """The exact paths to the samples of the data, as if from a perfect teacher."""
        clean, times = raw_batch["vae_latent"], torch.tensor(TRAJECTORY_TIMESTEPS, dtype=torch.float64)
        times = torch.cat([times, self.shift_and_clamp_timestep(times)]).float()
        times = torch.tensor(sorted(set(times.tolist()), reverse=True))
        ends, padding = clean.flatten(1).tensor_split([self.data.dim], dim=1)
        states = self.data.path(ends, times / self.num_train_timesteps)
        states = torch.cat([states, padding[:, None].expand(-1, len(times), -1)], dim=2)  # which no teacher moves
        states = states.reshape(len(clean), len(times), *clean.shape[1:])
        return Trajectory(states.to(context.device()), times.expand(len(ends), -1))

    supports_tangent = True

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
        trajectory = self.stored_trajectory(raw_batch) if latents_source == "trajectory" else None
        negative = {"condition": torch.zeros_like(ones)}
        weight = raw_batch.get("loss_weight")
        if weight is not None:
            weight = weight.to(latents.device)
        return TrainingBatch(latents, {"condition": ones}, negative, loss_weight=weight, trajectory=trajectory)

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
        if conditioning is None:
            found = "the method asks for conditional=False of a batch that has no negative conditioning"
            raise ContractError(Problem(found, fix="keep what prepare_batch gave"))
        out: Tensor = handle.modules["transformer"](
            noisy_latents.flatten(1), self.sigma(t).reshape(-1), conditioning["condition"]
        )
        return out.reshape(noisy_latents.shape)

    def extract_features(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, conditional: bool
    ) -> list[Tensor]:
        """The last hidden layer of a learned network, [B, 1, width]."""
        network = _learned(handle)
        features = features_of(
            [network.net[-2]],
            lambda: self.predict_noise(handle, noisy_latents, t, batch, conditional=conditional),
        )
        return [hidden[:, None] for hidden in features]

    def feature_channels(self, handle: RoleHandle) -> tuple[int, ...]:
        """The width of a learned network."""
        last = _learned(handle).net[-1]
        assert isinstance(last, nn.Linear)
        return (last.in_features,)


class ToyData:
    """An endless, resumable stream of the mixture's samples; a pure function of (seed, samples consumed, data rank)."""

    def __init__(self, config: ToyConfig, *, seed: int, batch_size: int, mesh: Mesh) -> None:
        generator = torch.Generator().manual_seed(stream_seed(seed, "toy data"))
        self._samples = config.data.sample(config.num_samples, generator)
        self._weight: Tensor | None = None
        if config.padding:
            self._samples = torch.cat([self._samples, _padding(config, generator)], dim=1)
            self._weight = (torch.arange(config.dim) < config.data.dim).float()[None]
        if config.layout == "video":
            self._samples = _as_video(self._samples)
            self._weight = None if self._weight is None else _as_video(self._weight)
        self._batch_size = batch_size
        self._mesh = mesh
        self._consumed = 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            start = self._consumed + self._mesh.data_rank * self._batch_size
            index = torch.arange(start, start + self._batch_size) % len(self._samples)
            self._consumed += self._mesh.data_size * self._batch_size
            yield {"vae_latent": self._samples[index]} | (
                {} if self._weight is None else {"loss_weight": self._weight.clone()}
            )

    def state_dict(self) -> dict[str, int]:
        return {"consumed": self._consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._consumed = state["consumed"]


def _padding(config: ToyConfig, generator: torch.Generator) -> Tensor:
    return 4 * torch.randn(config.num_samples, config.padding, generator=generator)


def _as_video(vectors: Tensor) -> Tensor:
    """[B, D] as [B, 1, D, 1, 1]."""
    return vectors[:, None, :, None, None]


def _learned(handle: RoleHandle) -> ToyNetwork:
    network = handle.modules["transformer"]
    if not isinstance(network, ToyNetwork):
        raise ContractError(f"role '{handle.name}' has the exact network, which has no features")
    return network


EXACT = "toy/exact"
"""The `path` of a role whose network is the exact velocity of the data; any other path names a learned one."""


def build_toy_components(cfg: RunConfig) -> ModelComponents:
    """A network per role (equal weights for equal `path`s), the adapter, and the mixture's samples."""
    config = cfg.pipeline_config
    assert isinstance(config, ToyConfig)
    roles = {}
    for name in cfg.family_roles(cfg.recipe.family):
        roles[name] = RoleHandle(
            name,
            {"transformer": _network(cfg.roles[name].path, config, cfg.training.seed).to(context.device())},
            family=cfg.recipe.family,
            trainable=cfg.roles[name].trainable,
            block_classes=(nn.Linear,),
        )
    data = ToyData(
        config, seed=cfg.training.seed, batch_size=cfg.training.train_batch_size, mesh=Mesh.current(cfg.training)
    )
    return ModelComponents(RoleManager(roles), ToyAdapter(config.flow_shift or 1.0, data=config.data), dataloader=data)


class ToyFamily(ModelFamily):
    """The family `toy`: it brings its own data, and offers nothing to commands."""

    def build(self, cfg: RunConfig) -> ModelComponents:
        return build_toy_components(cfg)

    def adapter_class(self) -> type[ToyAdapter] | None:
        return ToyAdapter


def _network(path: str, config: ToyConfig, seed: int) -> nn.Module:
    if path == EXACT:
        return ExactNetwork(config.data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, path))
        return ToyNetwork(config.dim, config.width, config.depth)
