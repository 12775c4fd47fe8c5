"""A model family: what it must give to a run, and what else it may offer to runs and commands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastvideo_core.config.base import PluginConfig
from fastvideo_core.config.run import LoraConfig, MergedLora, RunConfig
from fastvideo_core.contracts.adapter import DistillAdapter, LatentsSource
from fastvideo_core.contracts.demo import FamilyDemo
from fastvideo_core.contracts.roles import RoleHandle, RoleManager, WeightSource
from fastvideo_core.contracts.validator import DistillValidator, ModelSampler, ValidationPrompt
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.errors import ConfigError, PluginError, Problem
from fastvideo_core.registry import Plugin, PluginRegistry

WarpedSchedule = Callable[[Callable[[Tensor], Tensor]], FewStepSchedule | None]
"""From the family's timestep shift to a student's schedule, as `DistillMethod.student_schedule`."""

OFFERS = ("encoder", "sampler", "export", "export_lora", "tiny", "demo")
"""What a family may offer to commands."""


@dataclass
class ModelComponents:
    """The result of a family's `build`.

    `dataloader` is any iterable of raw batches, resumable when it has state_dict and load_state_dict (which may differ by
    rank); with `num_samples` and `batches_per_epoch` its size is told. None where the family is not the recipe's.
    """

    bundle: RoleManager
    adapter: DistillAdapter
    validator: DistillValidator | None = None
    dataloader: Iterable[Any] | None = None


@dataclass(frozen=True)
class RoleOutline:
    """A role without weights, from configurations alone: what `check` estimates its memory from.

    `handle` is as `build` makes it, in the same dtypes, but with parameters on meta. `evaluate` gives the network's output for so
    many samples of the run's size, made of `torch.empty` on the CPU, in the run's precision; of several networks, of which a call
    is of one, `evaluates` names the one that it calls.
    """

    handle: RoleHandle
    evaluate: Callable[[int], Tensor] | None = None
    evaluates: str | None = None


@dataclass(frozen=True)
class Findings:
    """What is found out about a run before it is built: why it cannot start, what may be meant otherwise, what `check` shows."""

    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


class ModelFamily(ABC):
    """A model family; a run and a command make one instance each, which may keep what it has opened.

    `build` is all that it must have; what else it defines it offers. In every `cfg` a role's path is the pipeline that the
    role rests on, also where run.yaml names one of our checkpoints. `base_precisions` are the values of `roles.X.base_precision`
    that its roles follow; `splits_tokens` says that its roles' handles have `split_tokens`, for `training.sequence_parallel`.
    """

    base_precisions: ClassVar[tuple[str, ...]] = ()
    splits_tokens: ClassVar[bool] = False

    @abstractmethod
    def build(self, cfg: RunConfig) -> ModelComponents:
        """The run's roles of this family, its adapter, its validator and its data; raises a UserError where they do not fit."""

    # --- what a run asks before it is built -----------------------------------------------------------------------------

    def resolve(self, cfg: RunConfig, *, latents_source: LatentsSource | None) -> PluginConfig:
        """`pipeline_config` with what it leaves to the pipelines and the data written out.

        It is stored with the run's checkpoints, so that sampling and exporting them need neither run.yaml nor data.
        `latents_source` is what the method will ask of prepare_batch; None when only running it can tell. Raises a UserError
        where pipelines or data do not say what is needed.
        """
        return cfg.pipeline_config

    def check_roles(self, cfg: RunConfig) -> list[Problem]:
        """What is wrong with the pipelines of the family's roles, as far as it can be known without loading weights."""
        return []

    def check(
        self,
        cfg: RunConfig,
        *,
        latents_source: LatentsSource | None,
        many_steps: bool,
        download: bool,
        roles_known: bool = True,
    ) -> Findings:
        """What is wrong with the data and the prompts of a run whose recipe names this family, before weights are loaded.

        `many_steps` says that the student is sampled in many steps, `download` that weights may be fetched to look at them. Not
        `roles_known`: a role's path leads nowhere, which is told already, and pipelines are not looked at.
        """
        return Findings()

    def adapter_class(self) -> type[DistillAdapter] | None:
        """The class of the adapter that `build` gives, so that a method which it does not fit is told early."""
        return None

    def validates(self) -> bool:
        """Whether `build` gives a validator where `training.log_validation` asks for one: by default where it has `sampler`."""
        return "sampler" in self.offers()

    def latent_space(self, role: str) -> Mapping[str, object] | None:
        """What a role's latents and text embeddings are like, in plain words and numbers; None where the family does not say.

        All roles of a run see the same batches, so these are compared by key, over families too. Raises a UserError when
        the role's pipeline cannot be read.
        """
        return None

    def outline(self, cfg: RunConfig, role: str, *, latents_source: LatentsSource | None) -> RoleOutline | None:
        """A role's networks on meta; None where the family cannot tell. UserError where path, sizes or data do not fit."""
        return None

    def merge_lora(
        self, base_path: str, weights: WeightSource, file: MergedLora, *, where: str
    ) -> tuple[WeightSource, MergedLora]:
        """Weights of a pipeline's networks with a LoRA file added in float32, read later, and the file as runs record it: by its
        absolute path and its fingerprint. Raises a UserError where it does not fit, or its fingerprint is another.
        """
        found = f"the family '{type(self).__name__}' merges no LoRA files"
        raise ConfigError(Problem(found, where, fix="name a pipeline as path that they are merged into"))

    def initial_lora(
        self, base_path: str, lora: LoraConfig, names: Collection[str], *, where: str
    ) -> Mapping[str, Tensor]:
        """What the files `lora.init` hold of the adapters `names` (module.layer.lora_A.default.weight); UserError on misfits."""
        found = f"the family '{type(self).__name__}' reads no LoRA files"
        raise ConfigError(Problem(found, where, fix="leave it out: adapters start at no effect"))

    def resume_problems(self, cfg: RunConfig, data_state: Any) -> list[Problem]:
        """Why the run's data cannot go on at a stored position, which the data loader's state_dict gave."""
        return []

    # --- what it offers to commands -------------------------------------------------------------------------------------

    def encoder(self, model_path: str, *, device: torch.device) -> Any:
        """What `preprocess` encodes videos and captions with (a `LatentEncoder` of fastvideo-data)."""
        raise NotImplementedError

    def sampler(self, model_path: str, pipeline_config: Any, *, device: torch.device) -> ModelSampler:
        """Samples with the network of a folder or hub id, for `sample`; `pipeline_config` is resolved."""
        raise NotImplementedError

    def read_prompts(self, path: Path) -> Sequence[ValidationPrompt]:
        """The prompts of a file, for `sample`; raises a UserError when it cannot be used."""
        found = f"the family '{type(self).__name__}' reads no files of prompts"
        raise ConfigError(Problem(found, where=str(path), fix="name each with --prompt"))

    def export(
        self,
        base_path: str,
        out: Path,
        modules: dict[str, dict[str, Tensor]],
        *,
        pipeline_config: Any,
        student_schedule: WarpedSchedule | None,
    ) -> Sequence[str]:
        """Writes a trained role as a folder of the family's own format, and gives notes for the user.

        `base_path` is the pipeline that it was trained on, `modules` are state dicts by module name; `student_schedule` is None
        for a student of many steps. `out` is the new folder, complete or absent, whatever happens.
        """
        raise NotImplementedError

    def export_lora(
        self, base_path: str, out: Path, adapters: dict[str, dict[str, Tensor]], *, lora: LoraConfig, format: str
    ) -> Sequence[str]:
        """Writes a trained role's LoRA adapters alone, as `diffusers` or another program spells them: UserError if it cannot."""
        raise NotImplementedError

    def tiny(self, out: Path, *, seed: int) -> str | None:
        """Writes a small random-weight pipeline in the family's real format (more keywords: sizes); gives a note for the user."""
        raise NotImplementedError

    def demo(self, *, fast: bool) -> FamilyDemo:
        """The family's part of the command `demo`."""
        raise NotImplementedError

    @classmethod
    def offers(cls) -> tuple[str, ...]:
        """Which of OFFERS it defines."""
        return tuple(name for name in OFFERS if getattr(cls, name) is not getattr(ModelFamily, name))


def family_class(plugin: Plugin, registry: PluginRegistry) -> type[ModelFamily]:
    """The class of a family, made where a bare build function was registered; raises PluginError where it is neither."""
    impl: Any = registry.resolve(plugin, "impl")
    if isinstance(impl, type):
        # "type-abstract": what comes back is a subclass, and is not abstract.
        return registry.class_of(plugin, "impl", ModelFamily)  # type: ignore[type-abstract]
    # Whether a function's components have a validator is seen once it is called.
    return type(plugin.name, (ModelFamily,), {"build": lambda self, cfg: impl(cfg), "validates": lambda self: True})


def open_family(name: str, registry: PluginRegistry, offer: str = "build") -> ModelFamily:
    """A new instance of the family; raises PluginError where it is unknown, broken, or does not offer `offer`, one of OFFERS."""
    plugin = registry.get("models", name)
    found = family_class(plugin, registry)
    if offer not in ("build", *found.offers()):
        others = []
        for other in registry.names("models"):
            with suppress(PluginError):  # a broken one can do nothing at all
                if offer in family_class(registry.get("models", other), registry).offers():
                    others.append(other)
        allowed = ", ".join(found.offers()) or "training alone"
        fix = f"take a family that does: {', '.join(others)}" if others else ""
        text = f"the model family '{plugin.name}' does not offer `{offer}`"
        raise PluginError(Problem(text, where=str(plugin.provenance), allowed=allowed, fix=fix))
    return found()
