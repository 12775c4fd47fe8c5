"""Networks of one role that others use as well, each with adapters of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.nn.modules.dropout import _DropoutNd

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ConfigError, ContractError, Problem


class SharedNetworks:
    """Networks that are the `owner`'s as they are, and other roles' with the adapters that are named by them.

    They stay in eval mode, whoever is called. Never peft's own `set_adapter`: it changes who requires a gradient.
    """

    def __init__(self, owner: RoleHandle) -> None:
        self.owner, self.role = owner.name, ""  # `role` is whose call it is
        self._modules = list(owner.modules.values())
        self._layers: list[Any] = []
        for module in self._modules:
            if any(isinstance(part, _DropoutNd) and part.p > 0 for part in module.modules()):
                found = "its networks have dropout, which roles that share them cannot have"
                raise ConfigError(Problem(found, f"roles.{owner.name}.path", fix="remove `share`"))
            module.register_forward_pre_hook(self._check_role)
        owner.bindings += (lambda: partial(self.active, self.role),)

    def find_layers(self) -> None:
        """To be called when adapters were added."""
        parts = (part for module in self._modules for part in module.modules())
        self._layers = [part for part in parts if hasattr(part, "_active_adapter")]

    @contextmanager
    def active(self, role: str) -> Iterator[None]:
        """Inside, calls are those of `role`."""
        before = self.role
        self._switch(role)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, role: str) -> None:
        self.role = role
        for layer in self._layers:
            layer._active_adapter = [role]  # of the owner none has adapters

    def _check_role(self, *_: object) -> None:
        if not self.role:
            found = f"a network that others share with role '{self.owner}' is called, and nothing says for whom"
            fix = "call the adapter with the role's handle, or enter `handle.active()` around it"
            raise ContractError(Problem(found, "roles", fix=fix))


def share_networks(handle: RoleHandle, owner: RoleHandle) -> None:
    """The handle's networks become the owner's, to be given adapters; its own are let go. To be done before `add_lora`."""
    owner.base = owner.base or SharedNetworks(owner)
    handle.base, handle.modules, handle.weights = owner.base, owner.modules, None
    handle.bfloat16_classes = owner.bfloat16_classes
