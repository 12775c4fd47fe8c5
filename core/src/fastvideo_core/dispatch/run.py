"""A run, resolved once: everything that building, estimating and resuming it need to know of run.yaml and of what it names."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from fastvideo_core.checkpoint.resume_choice import Choice
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.family import ModelFamily, RoleOutline
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.dispatch.role_weights import RoleSource
from fastvideo_core.errors import Problem, UserError
from fastvideo_core.registry.registry import PluginRegistry


@dataclass(frozen=True)
class Run:
    """A run whose plug-ins, roles and checkpoint are found.

    Args:
        cfg: as it is kept: role paths mean the same whenever and from wherever they are read, `pipeline_config` is in full.
        families: one instance by name, the recipe's first.
        sources: where the weights of each role of run.yaml come from.
        resumed: the checkpoint that it goes on from; None for a new run.
    """

    cfg: RunConfig
    registry: PluginRegistry
    method: type[DistillMethod]
    families: Mapping[str, ModelFamily]
    sources: Mapping[str, RoleSource]
    resumed: Choice | None

    @property
    def based(self) -> RunConfig:
        """The configuration as families see it: a role's path is the pipeline that the role rests on."""
        return based_on(self.cfg, self.sources)

    @property
    def family(self) -> ModelFamily:
        """The recipe's family."""
        return self.families[self.cfg.recipe.family]

    @property
    def latents_source(self) -> LatentsSource | None:
        """Whether the method trains on the data's latents; None when it does not say."""
        return self.method.latents_source(self.cfg)

    def outline(self, role: str) -> RoleOutline | None:
        """A role's networks on the meta device, without LoRA adapters; None where its family cannot tell.

        Raises:
            UserError: path, sizes or data do not fit.
        """
        family = self.families[self.cfg.role_family(role)]
        return family.outline(self.based, role, latents_source=self.latents_source)

    def latent_space_problems(self) -> Iterator[Problem]:
        """Roles whose latents or text embeddings are not like the first role's."""
        spaces: dict[str, Mapping[str, object]] = {}
        for role in self.cfg.roles:
            with suppress(UserError):  # told by the family's own check
                if (space := self.families[self.cfg.role_family(role)].latent_space(role)) is not None:
                    spaces[role] = space
        for role, space in spaces.items():
            first = next(iter(spaces))
            keys = [key for key in {**spaces[first], **space} if spaces[first].get(key) != space.get(key)]
            if keys:
                differences = "; ".join(
                    f"{key} {_short(space.get(key))}, not {_short(spaces[first].get(key))}" for key in keys
                )
                of_first, of_role = (self.cfg.roles[name].path for name in (first, role))
                found = f"latents or text embeddings differ from those of {first} ({of_first}): {differences}"
                allowed = "roles that train on the same latents and text embeddings"
                yield Problem(found, where=f"roles.{role}.path ({of_role})", allowed=allowed)


def based_on(cfg: RunConfig, sources: Mapping[str, RoleSource]) -> RunConfig:
    """The run with the pipelines that its roles rest on as their paths."""
    return cfg.with_role_paths({name: source.base for name, source in sources.items()})


def _short(value: object) -> str:
    return "none" if value is None else textwrap.shorten(str(value), 60, placeholder="...")
