"""How a method talks to a family's networks: one required call, and primitives, each a small Protocol.

A method declares one Protocol of its own that inherits from those that it needs, from here or from any other package:

    class Needs(AddNoise, PredictX0, Protocol): ...
    class MyMethod(DistillMethod[Needs]): ...

`check_adapter` verifies presence and signatures of all its members before step 1.
Meaning shared by all families: latents are one tensor [B, ...]; `t` is in [0, num_train_timesteps], [B] or broadcastable
to the latents, and already shifted; sigma = t / num_train_timesteps; x_t = (1 - sigma) x0 + sigma noise.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.diffusion.noise_ranges import Ranges
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


@runtime_checkable
class NoiseRanges(Protocol):
    """Optional on adapters: of families whose roles may have a network for each range of noise levels."""

    def noise_ranges(self, handle: RoleHandle) -> Ranges:
        """(low, high) timesteps of each network, in order: of those that are trained if the role is, else of all.

        A timestep on a border belongs to the range above it. Without this call a role has one network over the whole axis.
        """
        ...


def members_of(protocol: type) -> dict[str, Any]:
    """The public members of a Protocol, inherited ones too: functions, properties, or the annotations of plain attributes.

    Raises:
        TypeError: it is no Protocol.
    """
    if not _is_protocol(protocol):
        raise TypeError(f"{getattr(protocol, '__qualname__', repr(protocol))} is no Protocol")
    members: dict[str, Any] = {}
    for part in reversed(protocol.__mro__):
        if _is_protocol(part):
            own = {**inspect.get_annotations(part), **vars(part)}
            members |= {name: member for name, member in own.items() if not name.startswith("_")}
    return members


def role_parameter(signature: inspect.Signature) -> int | None:
    """The place of the role in a bound call: the parameter annotated RoleHandle, or a first one named `handle`."""
    for index, parameter in enumerate(signature.parameters.values()):
        annotation = parameter.annotation
        annotated = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        if annotated.rpartition(".")[2] == RoleHandle.__name__ or (index == 0 and parameter.name == "handle"):
            return index
    return None


def check_adapter(
    adapter: Any, needed: type | Iterable[type], *, method: str, family: str, roles_only: bool = False
) -> None:
    """Fails unless the adapter has `prepare_batch` and every member of the needed Protocols, callable as they say.

    Args:
        adapter: the adapter, or its class where none is made yet; attributes that only an instance has are not missed then.
        roles_only: look only at calls that take a role, as of a family beside the recipe's.

    Raises:
        ContractError: listing everything that is missing, has another signature, or is no Protocol.
    """
    problems: list[Problem] = []
    kind = adapter if isinstance(adapter, type) else type(adapter)
    where = f"family '{family}', {kind.__name__}"
    members = members_of(DistillAdapter)
    for protocol in [needed] if isinstance(needed, type) else needed:
        try:
            members |= members_of(protocol)
        except TypeError as error:
            found = f"method '{method}' names what it needs, but {error}"
            fix = "name a class with Protocol among its bases: class Needs(AddNoise, PredictX0, Protocol)"
            problems.append(Problem(found, fix=fix))
    for name, member in members.items():
        if roles_only and not (_is_method(member) and role_parameter(inspect.signature(_bound(member))) is not None):
            continue
        allowed = _render(name, member)
        if _lacks(adapter, name, member):
            found = f"lacks the primitive '{name}', which method '{method}' needs"
            fix = f"implement it, or choose a method that does not need '{name}'"
            problems.append(Problem(found, where, allowed, fix))
        elif mismatch := _mismatch(adapter, name, member):
            problems.append(Problem(f"'{name}' {mismatch}", where, allowed))
    if problems:
        raise ContractError(problems)


def _is_protocol(kind: Any) -> bool:
    return isinstance(kind, type) and kind is not Protocol and bool(getattr(kind, "_is_protocol", False))


def _is_method(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, (staticmethod, classmethod))


def _lacks(adapter: Any, name: str, member: Any) -> bool:
    found = inspect.getattr_static(adapter, name, None)
    if _is_method(member):  # what a Protocol itself or an abstract class has is no implementation
        absent = found is None and not hasattr(adapter, name)
        return (
            absent or found is member or (isinstance(adapter, type) and getattr(found, "__isabstractmethod__", False))
        )
    return not isinstance(adapter, type) and not hasattr(adapter, name)


def _render(name: str, member: Any) -> str:
    if _is_method(member):
        return f"{name}{_bare(inspect.signature(_bound(member)))}"
    if isinstance(member, property):
        shown = inspect.signature(member.fget).return_annotation if member.fget is not None else Any
        return f"{name} -> {shown if isinstance(shown, str) else inspect.formatannotation(shown)} (a property)"
    return f"{name}: {member if isinstance(member, str) else inspect.formatannotation(member)}"


def _bare(signature: inspect.Signature) -> inspect.Signature:
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return inspect.Signature(parameters)


def _bound(member: Any) -> Any:
    """A method of a class as it is called on an instance, of which there is none yet."""
    return member.__get__(object(), object) if hasattr(member, "__get__") else member


def _mismatch(adapter: Any, name: str, member: Any) -> str:
    if isinstance(adapter, type):
        static = inspect.getattr_static(adapter, name, None)
        if static is None or isinstance(static, property):
            return ""  # only an instance can tell
        candidate = _bound(static)
    else:
        candidate = getattr(adapter, name)
    if not _is_method(member):
        is_value = not isinstance(member, property) or not inspect.isroutine(candidate)
        return "" if is_value else "is a method, not a value"
    if not callable(candidate):
        return f"is a {type(candidate).__name__}, not a method"
    try:
        actual = inspect.signature(candidate)
    except ValueError:  # of code that is not Python
        return ""
    for arguments, keywords in _calls(inspect.signature(_bound(member))):
        try:
            actual.bind(*arguments, **keywords)
        except TypeError as error:
            return f"cannot be called as the contract says ({error}); it is {_bare(actual)}"
    return ""


def _calls(contract: inspect.Signature) -> list[tuple[list[str], dict[str, str]]]:
    """How callers may pass arguments: all by position, all by name, and only those that have no default."""
    named = [p for p in contract.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    first = [p for p in named if p.kind is p.POSITIONAL_ONLY]
    either = [p for p in named if p.kind is p.POSITIONAL_OR_KEYWORD]
    last = [p for p in named if p.kind is p.KEYWORD_ONLY]
    return [
        ([p.name for p in by_position if p in chosen], {p.name: p.name for p in by_name if p in chosen})
        for by_position, by_name in (([*first, *either], last), (first, [*either, *last]))
        for chosen in (named, [p for p in named if p.default is p.empty])
    ]
