"""What a callback is, and the moments of a run at which it is called, as pluggy hook specifications.

Every hook runs on ALL ranks, in the same order, and may use collectives, unless its line says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pluggy

from fastvideo_core.config.base import PluginConfig
from fastvideo_core.errors import Problem

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from fastvideo_core.contracts.method import DistillMethod

PROJECT = "fastvideo_distill"
"""Whose hooks they are, for pluggy."""
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a callback's method as the hook of its name."""


class Callback:
    """Something that accompanies a run; implements hooks of RunHooks with `@hookimpl`.

    `config` is its section of run.yaml. `order` declares its place: lower runs earlier, equal ones by name.
    """

    order: ClassVar[int] = 0

    def __init__(self, config: PluginConfig) -> None:
        self.config = config

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint must keep: nested dicts and lists of tensors, numbers, strings, booleans and None."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave; called after `train_start`."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, but the checkpoint holds {', '.join(state)}")

    def misfits(self, state: dict[str, Any]) -> list[Problem]:
        """What of a stored state does not fit the configuration, as far as it can be told before `train_start`."""
        return []

    def start_afresh(self) -> None:
        """Called instead of `load_state_dict` when `resume_without_callbacks` lets a run have this callback anew.

        What `train_start` took from the method was from before its weights were loaded.
        """


class RunHooks:
    """The hook specifications; a callback implements any of them with `@hookimpl` and takes the arguments it needs."""

    def train_start(self, method: DistillMethod, start_step: int) -> None:
        """Once, before the first step; when resuming, before the checkpoint is restored."""

    def before_round(self, method: DistillMethod, step: int, batch: Any) -> None:
        """A raw batch of the data, not to be changed, is trained on next; once per accumulation round."""

    def before_optimizer_step(
        self, method: DistillMethod, step: int, optimizers: Sequence[Optimizer], metrics: dict[str, Any]
    ) -> None:
        """Gradients of this step's optimizers are complete and not yet clipped; may add to `metrics` (tensors or floats)."""

    def after_optimizer_step(self, method: DistillMethod, step: int, optimizers: Sequence[Optimizer]) -> None:
        """`optimizers` have just been stepped; others have not. Not called for an update that is left out."""

    def step_end(self, method: DistillMethod, step: int, metrics: dict[str, Any]) -> None:
        """A step is over and its metrics are complete; may add to `metrics`."""

    def stop_requested(self, step: int) -> bool:  # type: ignore[empty-body]
        """After `step_end`: whether the run ends with this step as with its last one. All processes must answer alike."""

    def validation_start(self, method: DistillMethod, step: int) -> None:
        """Before the method samples; what is changed here is undone in `validation_end`."""

    def validation_end(self, method: DistillMethod, step: int) -> None:
        """After the method sampled, also when that or a `validation_start`, perhaps before this callback's, failed."""

    def checkpoint_saved(self, path: Path, step: int) -> None:
        """A checkpoint is complete on disk. Main process only, no collectives."""

    def train_end(self, method: DistillMethod, step: int) -> None:
        """Once, after the last step and the last checkpoint."""

    def exception(self, method: DistillMethod, step: int, error: BaseException) -> None:
        """The run is ending with `error`. No collectives: other ranks may be gone."""


HOOKS = tuple(name for name in vars(RunHooks) if not name.startswith("_"))
for _name in HOOKS:
    pluggy.HookspecMarker(PROJECT)(getattr(RunHooks, _name))
