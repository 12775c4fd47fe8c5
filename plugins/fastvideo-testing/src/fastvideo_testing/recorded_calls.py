"""What a method asks of its adapter, remembered call by call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle

Change = Callable[[TrainingBatch], TrainingBatch]


@dataclass(frozen=True)
class NetworkCall:
    """One call of a primitive that runs a role's network.

    Args:
        conditional: what the call was given; None where the primitive has no such argument.
        guidance_scale, attn_kind: likewise.
        recorded: whether operations were recorded for a gradient.
        input_has_graph: whether the noisy latents had one.
        noised_at: the timesteps at which `add_noise` made these noisy latents; None where it did not make them.
        output: with its graph, and after the step its gradient.
    """

    primitive: str
    role: RoleHandle
    noisy: Tensor
    t: Tensor
    conditional: bool | None
    guidance_scale: float | None
    attn_kind: str | None
    recorded: bool
    input_has_graph: bool
    noised_at: Tensor | None
    loss_weight: Tensor | None
    output: Any

    @property
    def trains(self) -> bool:
        """Whether the role can learn from this call."""
        return self.recorded and self.role.trainable

    def __str__(self) -> str:
        half = {None: "", True: ", conditional", False: ", unconditional"}[self.conditional]
        return f"{self.primitive} of {self.role.name}{half}{', with a graph' if self.trains else ''}"


@dataclass
class RecordedCalls:
    """Everything that a method asked of its adapter since it was made or cleared.

    Args:
        calls: of networks, in order.
        noises: the noise of every call of `add_noise`.
        batches: every prepared batch, with a copy of its tensors as they were.
        asked: the keyword arguments of every call of `prepare_batch`.
        starts: how often the adapter's `on_train_start` was called.
    """

    calls: list[NetworkCall] = field(default_factory=list)
    noises: list[Tensor] = field(default_factory=list)
    batches: list[tuple[TrainingBatch, dict[str, Tensor]]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    starts: int = 0
    _noised: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _inside: bool = False

    @classmethod
    def of(cls, method: DistillMethod, change: Change | None = None) -> RecordedCalls:
        """From now on remembers the calls of the method's adapter; `change` makes another batch of each prepared one."""
        recorded, adapter = cls(), method.adapter
        for name in dir(type(adapter)):
            member = getattr(adapter, name)
            if name.startswith("_") or not inspect.ismethod(member):
                continue
            if name == "prepare_batch":
                setattr(adapter, name, recorded._prepares(member, change))
            elif name == "add_noise":
                setattr(adapter, name, recorded._adds_noise(member))
            elif next(iter(inspect.signature(member).parameters), "") == "handle":
                setattr(adapter, name, recorded._runs_network(name, member))
        own_start = getattr(adapter, "on_train_start", lambda: None)

        def on_train_start() -> None:
            recorded.starts += 1
            own_start()

        adapter.on_train_start = on_train_start
        return recorded

    def clear(self) -> None:
        """Forgets all."""
        for items in (self.calls, self.noises, self.batches, self.asked, self._noised):
            items.clear()

    def _prepares(self, prepare: Callable[..., TrainingBatch], change: Change | None) -> Callable[..., TrainingBatch]:
        def prepare_batch(raw_batch: Any, **options: Any) -> TrainingBatch:
            batch = prepare(raw_batch, **options)
            if change is not None:
                batch = change(batch)
            self.asked.append(options)
            self.batches.append((batch, {name: value.clone() for name, value in tensors_of(batch).items()}))
            return batch

        return prepare_batch

    def _adds_noise(self, add: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def add_noise(clean_latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
            noisy = add(clean_latents, noise, t)
            if not self._inside:
                self.noises.append(noise.detach())
                self._noised.append((noisy, t.detach().clone()))
            return noisy

        return add_noise

    def _runs_network(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(run)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:  # a primitive that is made of others
                return run(*args, **kwargs)
            self._inside = True
            try:
                output = run(*args, **kwargs)
            finally:
                self._inside = False
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            self._note(name, given.arguments, output)
            return output

        return call

    def _note(self, name: str, given: Mapping[str, Any], output: Any) -> None:
        noisy, t, batch = given.get("noisy_latents"), given.get("t"), given.get("batch")
        if not isinstance(noisy, Tensor) or not isinstance(t, Tensor):
            return
        if isinstance(output, Tensor) and output.requires_grad:
            output.retain_grad()
        self.calls.append(
            NetworkCall(
                name,
                given["handle"],
                noisy.detach(),
                t.detach().clone(),
                given.get("conditional"),
                given.get("guidance_scale"),
                given.get("attn_kind"),
                torch.is_grad_enabled(),
                noisy.requires_grad,
                next((at for made, at in self._noised if made is noisy), None),
                batch.loss_weight if isinstance(batch, TrainingBatch) else None,
                output,
            )
        )


def tensors_of(batch: Any, name: str = "batch") -> dict[str, Tensor]:
    """Every tensor of a batch, raw or prepared, by where it stands in it."""
    if isinstance(batch, Tensor):
        return {name: batch}
    items: Any = {}
    if isinstance(batch, Mapping):
        items = batch.items()
    elif isinstance(batch, (list, tuple)):
        items = ((str(index), value) for index, value in enumerate(batch))
    elif isinstance(batch, TrainingBatch):
        items = ((part.name, getattr(batch, part.name)) for part in fields(batch))
    found: dict[str, Tensor] = {}
    for key, value in items:
        found |= tensors_of(value, f"{name}.{key}")
    return found
