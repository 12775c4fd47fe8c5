"""The base of a callback: its configuration, its place in the order, and its part of the checkpoint."""

from __future__ import annotations

from typing import Any, ClassVar

from fastvideo_core.config.base import PluginConfig
from fastvideo_core.errors import Problem


class Callback:
    """Something that accompanies a run; implements hooks of `callbacks.hooks.RunHooks` with `@hookimpl`.

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
