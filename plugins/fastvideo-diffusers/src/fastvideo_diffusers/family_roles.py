"""The roles of a run that are pipelines of one family, opened and fit for each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import ConfigError, Problem


class HasPath(Protocol):
    """What a family's configuration files say of a pipeline."""

    @property
    def path(self) -> str:
        """Folder or hub id."""
        ...


F = TypeVar("F", bound=HasPath)


@dataclass(frozen=True)
class FamilyRoles(Generic[F]):
    """The run's roles that are pipelines of a family.

    Args:
        folders: by role, in the order of run.yaml.
        base_role: the first trainable one, else the first; it gives VAE, scheduler and text encoder.
    """

    folders: Mapping[str, F]
    base_role: str

    @property
    def base(self) -> F:
        """The pipeline of `base_role`."""
        return self.folders[self.base_role]

    def pipelines(self) -> dict[str, F]:
        """Each different pipeline once, by the first role that has it; the base's by `base_role`."""
        others = {
            folder.path: role for role, folder in reversed([*self.folders.items()]) if folder.path != self.base.path
        }
        named = {self.base.path: self.base_role, **others}
        return {role: self.folders[role] for role in named.values()}


def open_family_roles(cfg: RunConfig, family: str, open_folder: Callable[..., F]) -> FamilyRoles[F]:
    """Reads the configuration files of every role's pipeline that is of a family, each pipeline's once.

    Args:
        family: its plain name; roles may name it with its package before a colon.
        open_folder: called with a path and `where`, how errors name the place that gave it.

    Raises:
        ConfigError: there is no such role, or a path holds no pipeline of the family.
    """
    names = [name for name in cfg.roles if cfg.role_family(name).rpartition(":")[2] == family]
    if not names:
        raise ConfigError(
            Problem(f"no role is of family '{family}'", "roles", fix="set recipe.family to the family of the roles")
        )
    opened: dict[str, F] = {}
    for name in names:
        path = cfg.roles[name].path
        if path not in opened:
            opened[path] = open_folder(path, where=f"roles.{name}.path")
    folders = {name: opened[cfg.roles[name].path] for name in names}
    return FamilyRoles(folders, next((name for name in names if cfg.roles[name].trainable), names[0]))
