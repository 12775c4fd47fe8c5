"""How a method talks to a family's networks: one required call and a set of small named primitives.

A method declares by name the primitives that it needs; `check_primitives` verifies presence and signatures before step 1.
Meaning shared by all families: latents are one tensor [B, ...]; `t` is in [0, num_train_timesteps], [B] or broadcastable
to the latents, and already shifted; sigma = t / num_train_timesteps; x_t = (1 - sigma) x0 + sigma noise.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ContractError, Problem

LatentsSource = Literal["data", "zeros"]
AttentionKind = Literal["dense", "vsa"]


@runtime_checkable
class DistillAdapter(Protocol):
    """The one thing that every family must offer. Adapters keep no state about roles: the handle says which network."""

    def prepare_batch(
        self,
        raw_batch: Any,
        *,
        current_vsa_sparsity: float = 0.0,
        latents_source: LatentsSource = "data",
        generator: torch.Generator | None = None,
    ) -> TrainingBatch:
        """A raw batch from the dataloader, on the device, normalised as the network expects.

        `latents_source="zeros"` gives latents of the run's shape without reading any from the data.

        Raises:
            DataError: when the batch lacks what is asked for.
        """
        ...


class NumTrainTimesteps(Protocol):
    @property
    def num_train_timesteps(self) -> int:
        """The length of the noise axis (1000 for every family so far)."""
        ...


class ShiftAndClampTimestep(Protocol):
    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """Unshifted t to shifted t, held inside [0, num_train_timesteps]; same shape."""
        ...


class AddNoise(Protocol):
    def add_noise(self, clean_latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, same shape and dtype as `clean_latents`."""
        ...


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
        ...


class PredictNoise(Protocol):
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
        ...


class PredictionTarget(Protocol):
    def prediction_target(self, clean_latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What `predict_noise` regresses at x_t of these; float32 at least."""
        ...


class PredictX0Guided(Protocol):
    def predict_x0_guided(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, guidance_scale: float
    ) -> Tensor:
        """x0 with guidance u + w (c - u): both halves in one call of the network; only c when the scale is 1."""
        ...


class PredictNoiseGuided(Protocol):
    def predict_noise_guided(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, guidance_scale: float
    ) -> Tensor:
        """`predict_noise` with guidance u + w (c - u): both halves in one call of the network; only c when the scale is 1."""
        ...


class ExtractFeatures(Protocol):
    def extract_features(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, conditional: bool
    ) -> list[Tensor]:
        """Hidden states of the role's network at x_t, each [B, tokens, channels], with their graph, shallow to deep.

        They must depend on the network's output as well, with a gradient of 0: a network that is sharded over several
        processes cannot be back-propagated from inner outputs alone. `features.features_of` sees to it.
        """
        ...


class FeatureChannels(Protocol):
    def feature_channels(self, handle: RoleHandle) -> tuple[int, ...]:
        """The channels of each feature map that `extract_features` gives for this role."""
        ...


class Backward(Protocol):
    def backward(self, loss: Tensor, ctx: Any, grad_accum_rounds: int = 1) -> None:
        """Back-propagates loss / grad_accum_rounds in whatever context the forward left in `ctx`."""
        ...


@runtime_checkable
class OnTrainStart(Protocol):
    """Optional on adapters: called once before step 1 (to encode the negative prompt, for example)."""

    def on_train_start(self) -> None: ...


@runtime_checkable
class HasRngGenerators(Protocol):
    """Optional on adapters: generators of its own that belong into the checkpoint."""

    def get_rng_generators(self) -> dict[str, torch.Generator]: ...


PRIMITIVES: Mapping[str, type] = {
    "num_train_timesteps": NumTrainTimesteps,
    "shift_and_clamp_timestep": ShiftAndClampTimestep,
    "add_noise": AddNoise,
    "predict_x0": PredictX0,
    "predict_noise": PredictNoise,
    "prediction_target": PredictionTarget,
    "predict_x0_guided": PredictX0Guided,
    "predict_noise_guided": PredictNoiseGuided,
    "extract_features": ExtractFeatures,
    "feature_channels": FeatureChannels,
    "backward": Backward,
}


def check_primitives(adapter: Any, needed: Iterable[str], *, method: str, family: str) -> None:
    """Fails unless the adapter has `prepare_batch` and all `needed` primitives, callable as their Protocols say.

    Raises:
        ContractError: listing everything that is missing, has another signature, or does not exist as a primitive.
    """
    problems = []
    where = f"family '{family}', {type(adapter).__name__}"
    for name in ("prepare_batch", *needed):
        if name != "prepare_batch" and name not in PRIMITIVES:
            found = f"method '{method}' needs '{name}', which is no primitive"
            problems.append(Problem(found, allowed=", ".join(PRIMITIVES), fix="correct its `primitives`"))
            continue
        reference = inspect.getattr_static(DistillAdapter if name == "prepare_batch" else PRIMITIVES[name], name)
        if not hasattr(type(adapter), name) and not hasattr(adapter, name):
            problems.append(
                Problem(
                    found=f"lacks the primitive '{name}', which method '{method}' needs",
                    where=where,
                    allowed=_render(name, reference),
                    fix=f"implement it, or choose a method that does not need '{name}'",
                )
            )
        elif not isinstance(reference, property):
            mismatch = _signature_mismatch(getattr(adapter, name), reference)
            if mismatch:
                problems.append(Problem(found=f"'{name}' {mismatch}", where=where, allowed=_render(name, reference)))
    if problems:
        raise ContractError(problems)


def _render(name: str, reference: Any) -> str:
    if isinstance(reference, property):
        return f"{name} -> int (a property)"
    parameters = list(inspect.signature(reference).parameters.values())[1:]
    shown = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])
    return f"{name}{shown}"


def _signature_mismatch(candidate: Any, reference: Any) -> str:
    if not callable(candidate):
        return f"is a {type(candidate).__name__}, not a method"
    expected = list(inspect.signature(reference).parameters.values())[1:]
    positional = [p for p in expected if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    keywords = {p.name: None for p in expected if p.kind is inspect.Parameter.KEYWORD_ONLY}
    actual = inspect.signature(candidate)
    try:
        actual.bind(*[None] * len(positional), **keywords)
    except TypeError as error:
        return f"cannot be called as the contract says ({error}); it is {actual}"
    names = [p.name for p in actual.parameters.values() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    optional = [p.name for p in positional if p.default is not inspect.Parameter.empty]
    lacking = [name for name in optional if name not in names]
    if lacking and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in actual.parameters.values()):
        return f"has no parameter named {', '.join(lacking)}; it is {actual}"
    return ""
