"""Roles: which network plays which part in a run (student, teacher, critic, ...), and where its weights come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fastvideo_core.distributed.context import EstimatedGroup
from fastvideo_core.errors import ConfigError, ContractError, Problem

if TYPE_CHECKING:
    from fastvideo_core.config.run import LoraConfig
    from fastvideo_core.weights.shared import SharedNetworks


class WeightSource(Protocol):
    """Where the weights of a role's modules are read from when the modules still are on the meta device."""

    def tensor_names(self, module: str) -> Sequence[str]:
        """Names of the tensors stored for `module`, as in its state dict."""

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        """One stored tensor, on the CPU, in its stored dtype; or some of its rows (dim 0), without the others where it can."""


def is_lora_parameter(name: str) -> bool:
    """Whether a parameter's name is that of a low-rank adapter, as peft names them."""
    return ".lora_A." in name or ".lora_B." in name


@dataclass
class RoleHandle:
    """One role's networks and what trains them.

    Args:
        modules: the role's networks by name, for example `{"transformer": ...}`, which `family` built.
        optimizers, lr_schedulers: written by the method; a scheduler under the name of the optimizer that it drives.
        block_classes: the classes that are the unit of sharding, activation checkpointing and compiling.
        weights: None when the modules are materialised; else parameters and persistent buffers are on meta, non-persistent
            buffers hold their values, and core loads the rest from here, in the parameters' own dtypes.
        bfloat16_classes: the classes inside of blocks whose float32 parameters the family computes with in bfloat16
            (by autocast): they are gathered in bfloat16, and reduced and kept in float32.
        frozen: says by its name `module.parameter` whether a parameter of a trainable role stays as it is; None trains all.
        lora: set by core when the role trains adapters instead of its own weights.
        saved: whether its weights belong into checkpoints; None where it is trainable. A frozen role that the method changes
            needs True, set no later than in `DistillMethod.extra_roles`.
        copy_of: the role of which `copy` made this one.
        base: set by core when the networks are of several roles: of one as they are, of the others with their own adapters.
        bindings: each is called when a block is, and what it returns is called and entered where activation checkpointing
            computes that block again: for what a forward depends on beside its arguments.
        split_tokens: makes one of its networks, called alike by every process of a group, compute a share of the tokens on each,
            and give all of them on each; see `fastvideo_diffusers.sequence_parallel`. None: each computes the whole.
        quantise: makes of a source of whole weights, `weights` with checkpoints and LoRA files in them, one of what the modules
            hold; None where that is the same. Such modules are on meta.
    """

    name: str
    modules: dict[str, nn.Module]
    family: str = ""
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    lr_schedulers: dict[str, LRScheduler] = field(default_factory=dict)
    trainable: bool = False
    block_classes: tuple[type[nn.Module], ...] = ()
    weights: WeightSource | None = None
    bfloat16_classes: tuple[type[nn.Module], ...] = ()
    frozen: Callable[[str], bool] | None = None
    lora: LoraConfig | None = None
    saved: bool | None = None
    copy_of: str = ""
    base: SharedNetworks | None = None
    bindings: tuple[Callable[[], Callable[[], AbstractContextManager[None]]], ...] = ()
    quantise: Callable[[WeightSource], WeightSource] | None = None
    split_tokens: Callable[[nn.Module, ProcessGroup | EstimatedGroup], None] | None = None

    @property
    def is_saved(self) -> bool:
        """Whether checkpoints hold the role's weights."""
        return self.trainable if self.saved is None else self.saved

    @property
    def borrows(self) -> bool:
        """Whether its networks are another role's, on which it has nothing but adapters."""
        return self.base is not None and self.base.owner != self.name

    def owns(self, name: str) -> bool:
        """Whether a parameter or a buffer of its networks is this role's, by name: of shared ones one role's alone."""
        if self.borrows:
            return f".lora_A.{self.name}." in name or f".lora_B.{self.name}." in name
        return self.base is None or not is_lora_parameter(name)

    def active(self) -> AbstractContextManager[None]:
        """Inside, calls of networks that several roles share are this role's; of others nothing changes."""
        return nullcontext() if self.base is None else self.base.active(self.name)

    def copy(self, name: str) -> RoleHandle:
        """A frozen role with networks of its own, on meta, which core fills with this role's weights; shared ones stay shared.

        For `DistillMethod.extra_roles`: raises a ContractError when this role was placed already.
        Where this role trains adapters, the copy gets the same ones.
        """
        if self.lora is not None or any(isinstance(parameter, DTensor) for _, parameter in self.named_parameters()):
            fix = f"call copy('{name}') in the method's `extra_roles`"
            raise ContractError(Problem(f"role '{self.name}' is copied after it was placed", fix=fix))
        modules, weights = self.modules, None
        if self.base is None:
            weights = self.weights or OwnWeights(self.modules)
            modules = {key: _on_meta(module) for key, module in modules.items()}
        copied = replace(self, name=name, modules=modules, weights=weights, copy_of=self.copy_of or self.name)
        return replace(copied, trainable=False, saved=None, optimizers={}, lr_schedulers={})

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All its parameters as (`module.parameter`, parameter), in a stable order."""
        for module_name, module in self.modules.items():
            for name, parameter in module.named_parameters():
                if self.owns(name):
                    yield f"{module_name}.{name}", parameter

    def train_only(self, modules: Sequence[str]) -> None:
        """Leaves the role's other modules as they are; raises a ConfigError for a name that none of its modules has."""
        if unknown := [name for name in modules if name not in self.modules]:
            where, allowed = f"roles.{self.name}.train_modules", ", ".join(self.modules)
            raise ConfigError([Problem(f"the role has no network {name!r}", where, allowed) for name in unknown])
        below = self.frozen
        self.frozen = lambda name: name.partition(".")[0] not in modules or (below is not None and below(name))

    def may_train(self, module: str) -> bool:
        """Whether `frozen` leaves a module any parameter to train."""
        names = (f"{module}.{name}" for name, _ in self.modules[module].named_parameters())
        return self.frozen is None or not all(map(self.frozen, names))

    def set_trainable(self) -> None:
        """Lets exactly what this role trains require a gradient: all, its adapters, or nothing; and sets train or eval."""
        for module in self.modules.values():
            module.train(self.trainable and self.base is None)
        for name, parameter in self.named_parameters():
            below_lora = self.lora is not None and not is_lora_parameter(name)
            stays = below_lora or (self.frozen is not None and self.frozen(name))
            parameter.requires_grad_(self.trainable and not stays)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that an optimizer of this role owns: those that require a gradient."""
        return [parameter for _, parameter in self.named_parameters() if parameter.requires_grad]


class OwnWeights:
    """A WeightSource: networks that have their weights, as they are now."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._tensors = {name: module.state_dict() for name, module in modules.items()}

    def tensor_names(self, module: str) -> Sequence[str]:
        return list(self._tensors.get(module, {}))

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        tensor: Tensor = self._tensors[module][name]
        return tensor if rows is None else tensor[rows]


def _on_meta(module: nn.Module) -> nn.Module:
    """The same network with parameters and persistent buffers on meta; other buffers keep their values."""
    on_meta: dict[int, Tensor] = {}  # what deepcopy takes for the copies of these tensors
    for tensor in module.state_dict(keep_vars=True).values():
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        on_meta[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    return deepcopy(module, on_meta).requires_grad_(False)


@dataclass
class RoleManager:
    """The run's roles by name."""

    roles: dict[str, RoleHandle]

    def __getitem__(self, name: str) -> RoleHandle:
        self.require_roles([name])
        return self.roles[name]

    def __contains__(self, name: object) -> bool:
        return name in self.roles

    def __iter__(self) -> Iterator[RoleHandle]:
        return iter(self.roles.values())

    def require_roles(self, names: Sequence[str]) -> None:
        """Raises a ContractError that names every missing role, and those that exist."""
        if listed := ", ".join(name for name in names if name not in self.roles):
            allowed = f"this run has: {', '.join(self.roles) or 'no roles'}"
            raise ContractError(
                Problem(f"missing roles {listed}", "roles", allowed, f"add {listed} to run.yaml's roles")
            )
