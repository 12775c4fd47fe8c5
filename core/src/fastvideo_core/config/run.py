"""The typed form of a whole run.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, Strict

from fastvideo_core.config import limits
from fastvideo_core.config.base import Factor, PathText, PluginConfig, StrictModel, plain
from fastvideo_core.config.document import dump_yaml
from fastvideo_core.config.training import Betas, FactorOrZero, LRSchedulerName, StepsOrZero, TrainingArgs
from fastvideo_core.errors import ContractError, Problem

Section = TypeVar("Section", bound=PluginConfig)

_Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Strict(False), Field(min_length=1)]


class RecipeConfig(StrictModel):
    """Which family and which method run together."""

    family: str = Field(min_length=1, description="Model family, as `fastvideo-distill plugins` lists it.")
    method: str = Field(min_length=1, description="Training method, as `fastvideo-distill plugins` lists it.")


class LoraConfig(StrictModel):
    """Low-rank adapters (Hu et al. 2021) that are trained instead of the role's own weights: W + alpha / rank * B A."""

    rank: int = Field(ge=1, le=limits.RANK, description="Inner dimension of every adapter.")
    alpha: Factor | None = Field(None, description="Adapters count by alpha / rank; null is rank, a factor of 1.")
    targets: _Names | None = Field(None, description="Ends of linear layers' names, or all-linear; null: all of blocks")
    init: PathText | dict[str, PathText] | None = Field(None, description="A LoRA file to begin with or {module: FILE}")

    @property
    def scale(self) -> float:
        """The factor with which the product of the adapters counts."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class MergedLora(StrictModel):
    """A LoRA file that is added to a role's weights when these are read."""

    path: PathText = Field(description="A safetensors file, a folder that holds one, or org/name/file of the hub.")
    scale: float = Field(1.0, ge=-limits.FACTOR, le=limits.FACTOR, description="Factor beside its own alpha / rank.")
    module: str | None = Field(None, min_length=1, description="The network that it is for; null: the first one.")
    fingerprint: str | None = Field(None, description="Of its values, as the run's checkpoints keep it.")

    def __str__(self) -> str:
        return f"{self.scale:g} x {self.path}" + ("" if self.fingerprint is None else f" ({self.fingerprint})")


_LoraFiles = Annotated[tuple[MergedLora, ...], Strict(False), Field(min_length=1)]


class RoleConfig(StrictModel):
    """One network of the run, and how it is trained if it is: as `training:` says, unless the role says otherwise."""

    path: PathText = Field(description="A diffusers folder, a hub id (org/name) or one of our own checkpoints.")
    trainable: bool = Field(description="Whether the optimizer updates this role.")
    family: str | None = Field(None, min_length=1, description="Model family of this role; null is recipe.family.")
    checkpoint_role: str | None = Field(None, min_length=1, description="The role of a checkpoint; null: of this name.")
    weights: Literal["auto", "raw", "ema"] = Field("auto", description="Which of a checkpoint's; auto prefers the EMA.")
    learning_rate: FactorOrZero | None = Field(None, description="Instead of training.learning_rate.")
    betas: Betas | None = Field(None, description="Instead of training.betas.")
    weight_decay: FactorOrZero | None = Field(None, description="Instead of training.weight_decay.")
    lr_scheduler: LRSchedulerName | None = Field(None, description="Instead of training.lr_scheduler.")
    lr_warmup_steps: StepsOrZero | None = Field(None, description="Instead of training.lr_warmup_steps.")
    max_grad_norm: FactorOrZero | None = Field(None, description="Instead of training.max_grad_norm.")
    lora: LoraConfig | None = Field(None, description="Train low-rank adapters only; null trains all weights.")
    share: str | None = Field(None, min_length=1, description="The frozen role whose networks its adapters are put on.")
    base_precision: Literal["bf16", "fp8", "int8", "nf4"] | None = Field(
        None, description="Of the frozen weights in memory; null: bf16 with mixed_precision bf16, else float32."
    )
    merge_lora: _LoraFiles | None = Field(None, description="LoRA files merged into its weights when these are read.")
    train_modules: _Names | None = Field(None, description="Which of its networks train, by their folders; null: all.")


OPTIMIZER_OVERRIDES = ("learning_rate", "betas", "weight_decay", "lr_scheduler", "lr_warmup_steps", "max_grad_norm")
"""Fields of RoleConfig that replace the setting of the same name in TrainingArgs."""


@dataclass(frozen=True)
class RunConfig:
    """A validated run.yaml; the sections of plug-ins are of the classes that the family, the method and each callback declare.

    `source` is the path of the file as the user gave it.
    """

    recipe: RecipeConfig
    roles: Mapping[str, RoleConfig]
    training: TrainingArgs
    pipeline_config: PluginConfig
    method_config: PluginConfig
    callbacks: Mapping[str, PluginConfig]
    source: str

    def section(self, kind: type[Section]) -> Section:
        """The method's or the family's section, whichever is of that class; raises ContractError where neither is."""
        for section in (self.method_config, self.pipeline_config):
            if isinstance(section, kind):
                return section
        found = f"the run has no {kind.__name__}, but {type(self.pipeline_config).__name__} of {self.recipe.family}"
        found += f" and {type(self.method_config).__name__} of {self.recipe.method}"
        raise ContractError(Problem(found, self.source, fix=f"derive one of the two from {kind.__name__}"))

    def role_family(self, role: str) -> str:
        """Family of a role: its own, else the recipe's."""
        return self.roles[role].family or self.recipe.family

    def role_setting(self, role: str, name: str) -> Any:
        """One of OPTIMIZER_OVERRIDES: the role's own where run.yaml gives it, else training's."""
        own = getattr(self.roles.get(role), name, None)
        return getattr(self.training, name) if own is None else own

    def family_roles(self, family: str) -> tuple[str, ...]:
        """Names of the roles that belong to a family, in the order of the file."""
        return tuple(role for role in self.roles if self.role_family(role) == family)

    @property
    def families(self) -> tuple[str, ...]:
        """Every family of the run, the recipe's first."""
        return tuple(dict.fromkeys([self.recipe.family, *(self.role_family(role) for role in self.roles)]))

    def with_roles(self, updates: Mapping[str, Mapping[str, Any]]) -> RunConfig:
        """The same run with other values for some roles."""
        changed = {role: self.roles[role].model_copy(update=update) for role, update in updates.items()}
        return replace(self, roles={**self.roles, **changed})

    def resolved(self) -> dict[str, Any]:
        """The whole run as plain data with every default filled in; reads back to an equal RunConfig."""
        names = ("recipe", "roles", "training", "pipeline_config", "method_config", "callbacks")
        roles = {name: plain(role.model_dump(exclude_none=True)) for name, role in self.roles.items()}
        return {name: plain(getattr(self, name)) for name in names} | {"roles": roles}

    def to_yaml(self) -> str:
        """`resolved()` as the text of a run.yaml."""
        return dump_yaml(self.resolved())
