"""The roles of a run that are pipelines of one family, opened and fit for each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.sections import MethodConfig
from fastvideo_core.errors import ConfigError, Problem


class HasLatentSpace(Protocol):
    """What a family's configuration files say of a pipeline, as far as it is compared with another one's."""

    @property
    def path(self) -> str:
        """Folder or hub id."""
        ...

    @property
    def latent_space(self) -> tuple[Any, ...]:
        """What two roles must share to train on the same latents and text embeddings."""
        ...


F = TypeVar("F", bound=HasLatentSpace)


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

    def pipelines(self) -> dict[str, str]:
        """Each different path once, by the first role that has it; the base's by `base_role`."""
        others = {
            folder.path: role for role, folder in reversed([*self.folders.items()]) if folder.path != self.base.path
        }
        named = {self.base.path: self.base_role, **others}
        return {role: path for path, role in named.items()}


def open_family_roles(
    cfg: RunConfig, family: str, open_folder: Callable[..., F], *, same_latent_space: str
) -> FamilyRoles[F]:
    """Reads the configuration files of every role's pipeline that is of a family.

    Args:
        family: its plain name; roles may name it with its package before a colon.
        open_folder: called with a path and `where`, how errors name the place that gave it.
        same_latent_space: as `allowed` of `check_same_latent_space`.

    Raises:
        ConfigError: there is no such role, a path holds no pipeline of the family, or roles do not share a latent space.
    """
    names = [name for name in cfg.roles if cfg.role_family(name).rpartition(":")[2] == family]
    if not names:
        raise ConfigError(
            Problem(f"no role is of family '{family}'", "roles", fix="set recipe.family to the family of the roles")
        )
    folders = {name: open_folder(cfg.roles[name].path, where=f"roles.{name}.path") for name in names}
    check_same_latent_space(folders, allowed=same_latent_space)
    return FamilyRoles(folders, next((name for name in names if cfg.roles[name].trainable), names[0]))


def check_same_latent_space(folders: Mapping[str, HasLatentSpace], *, allowed: str) -> None:
    """Roles of one run see the same latents and text embeddings.

    Args:
        folders: by role, one or more.
        allowed: what must be equal, in the family's own terms, for the message.

    Raises:
        ConfigError: naming every role that does not fit the first one.
    """
    (first, reference), *others = folders.items()
    problems = [
        Problem(
            f"latents or text embeddings differ from those of {first} ({reference.path})",
            where=f"roles.{name}.path ({folder.path})",
            allowed=allowed,
        )
        for name, folder in others
        if folder.latent_space != reference.latent_space
    ]
    if problems:
        raise ConfigError(problems)


def takes_many_steps(cfg: RunConfig) -> bool:
    """Whether validation samples the run's student with the pipeline's own scheduler."""
    config = cfg.method_config
    return isinstance(config, MethodConfig) and config.student_schedule(lambda t: t) is None
