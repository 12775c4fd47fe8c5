"""How a method talks to a family's networks: one required call, and primitives, each a small Protocol.

A method declares one Protocol of its own that inherits from those that it needs, from here or from any other package:

    class Needs(AddNoise, PredictX0, Protocol): ...
    class MyMethod(DistillMethod[Needs]): ...

Presence and signatures of all its members are checked before step 1 (`adapter_check`). For all families latents are one
tensor [B, ...]; `t` is in [0, num_train_timesteps], [B] or broadcastable to the latents, and already shifted;
sigma = t / num_train_timesteps; x_t = (1 - sigma) x0 + sigma noise.
"""

from abc import abstractmethod
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch, Trajectory
from fastvideo_core.contracts.roles import RoleHandle

LatentsSource = Literal["data", "zeros", "trajectory"]
"""Where a batch's latents come from; see `DistillAdapter.prepare_batch`."""
AttentionKind = Literal["dense", "vsa"]
"""Dense, or sparse (VSA) where the family has it."""
Ranges = tuple[tuple[float, float], ...]
"""(low, high) timesteps, in order; `low` belongs to a range, `high` only where the noise axis ends."""


@runtime_checkable
class DistillAdapter(Protocol):
    """The one thing that every family must offer. Adapters keep no state about roles: the handle says which network."""

    @abstractmethod
    def prepare_batch(
        self,
        raw_batch: Any,
        *,
        current_vsa_sparsity: float = 0.0,
        latents_source: LatentsSource = "data",
        generator: torch.Generator | None = None,
    ) -> TrainingBatch:
        """A raw batch from the dataloader, on the device, normalised as the network expects.

        `latents_source="zeros"` gives latents of the run's shape without reading any; "trajectory" those that the data's
        trajectories end in, and `TrainingBatch.trajectory`, in families with `StoredTrajectory`. Raises a DataError when the
        batch lacks what is asked for.
        """


class NumTrainTimesteps(Protocol):
    @property
    def num_train_timesteps(self) -> int:
        """The length of the noise axis (1000 for every family so far)."""


class ShiftAndClampTimestep(Protocol):
    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """Unshifted t to shifted t, held inside [0, num_train_timesteps]; same shape."""


class StoredTrajectory(Protocol):
    @abstractmethod
    def stored_trajectory(self, raw_batch: Any) -> Trajectory:
        """The trajectories of a raw batch, for `latents_source="trajectory"`; raises DataError where there are none that fit."""


class AddNoise(Protocol):
    def add_noise(self, clean_latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, same shape and dtype as `clean_latents`."""


class PredictX0(Protocol):
    def predict_x0(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: AttentionKind = "dense",
    ) -> Tensor:
        """The network's estimate of x0, float32 at least, same shape as `noisy_latents`."""


class PredictNoise(Protocol):
    @abstractmethod
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
        """The network's native regression output (the velocity for flow matching), same shape as `noisy_latents`."""


class PredictionTarget(Protocol):
    def prediction_target(self, clean_latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What `predict_noise` regresses at x_t of these; float32 at least."""


class PredictX0Guided(Protocol):
    def predict_x0_guided(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, guidance_scale: float
    ) -> Tensor:
        """x0 with guidance u + w (c - u): both halves in one call of the network; only c when the scale is 1."""


class PredictNoiseGuided(Protocol):
    def predict_noise_guided(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, guidance_scale: float
    ) -> Tensor:
        """`predict_noise` with guidance u + w (c - u): both halves in one call of the network; only c when the scale is 1."""


class SupportsTangent(Protocol):
    """Forward-mode derivatives (`torch.func.jvp`) go through `predict_noise`, with respect to latents and timesteps."""

    supports_tangent: Literal[True]


class ExtractFeatures(Protocol):
    def extract_features(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, conditional: bool
    ) -> list[Tensor]:
        """Hidden states of the role's network at x_t, each [B, tokens, channels], with their graph, shallow to deep.

        They depend on the network's output too, with a gradient of 0, as `hidden_states.features_of` sees to: a sharded
        network cannot be back-propagated from inner outputs alone.
        """


class FeatureChannels(Protocol):
    def feature_channels(self, handle: RoleHandle) -> tuple[int, ...]:
        """The channels of each feature map that `extract_features` gives for this role."""


class Backward(Protocol):
    def backward(self, loss: Tensor, ctx: Any, grad_accum_rounds: int = 1) -> None:
        """Back-propagates loss / grad_accum_rounds in whatever context the forward left in `ctx`."""


@runtime_checkable
class OnTrainStart(Protocol):
    """Optional on adapters: called once before step 1 (to encode the negative prompt, for example)."""

    def on_train_start(self) -> None: ...


@runtime_checkable
class HasRngGenerators(Protocol):
    """Optional on adapters: generators of its own that belong into the checkpoint."""

    def get_rng_generators(self) -> dict[str, torch.Generator]: ...


@runtime_checkable
class NoiseRanges(Protocol):
    """Optional on adapters: of families whose roles may have a network for each range of noise levels."""

    def noise_ranges(self, handle: RoleHandle) -> Ranges:
        """The range of each network, in order: of those that are trained if the role is, else of all."""
