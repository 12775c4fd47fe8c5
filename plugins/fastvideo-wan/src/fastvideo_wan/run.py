"""A run as Wan sees it: its roles' pipelines, and what can be said of its data and prompts before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastvideo_core.adapter import LatentsSource
from fastvideo_core.config.run import RunConfig
from fastvideo_core.data.encoder import EncoderIdentity
from fastvideo_core.data.sizes import fit_prompt
from fastvideo_core.data.validation import ValidationPrompt
from fastvideo_core.errors import ConfigError, Problem, UserError
from fastvideo_wan.batches import data_free_shape, stored_latents, stored_text
from fastvideo_wan.folder import WanFolder, check_same_latent_space, open_folder
from fastvideo_wan.identity import encoder_identity
from fastvideo_wan.sizes import GEOMETRY, SIZE

FAMILY = "wan"


@dataclass(frozen=True)
class WanRoles:
    """The run's roles that are Wan pipelines.

    Args:
        folders: by role, in the order of run.yaml.
        base_role: the first trainable one, which gives VAE, scheduler and text encoder.
    """

    folders: Mapping[str, WanFolder]
    base_role: str

    @property
    def base(self) -> WanFolder:
        """The pipeline of `base_role`."""
        return self.folders[self.base_role]


def open_roles(cfg: RunConfig) -> WanRoles:
    """Reads the configuration files of every Wan role's pipeline.

    Raises:
        ConfigError: there is no such role, a role's path holds no Wan 2.1 text-to-video pipeline, or roles do not share
            a latent space.
    """
    names = [name for name in cfg.roles if cfg.role_family(name).rpartition(":")[2] == FAMILY]
    if not names:
        raise ConfigError(
            Problem(f"no role is of family '{FAMILY}'", "roles", fix="set recipe.family to the family of the roles")
        )
    folders = {name: open_folder(cfg.roles[name].path, where=f"roles.{name}.path") for name in names}
    check_same_latent_space(folders)
    return WanRoles(folders, next((name for name in names if cfg.roles[name].trainable), names[0]))


def encoders(cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool) -> EncoderIdentity | None:
    """What the run's data must have been encoded with; see WanConfig.encoders."""
    roles = open_roles(cfg)
    where = f"roles.{roles.base_role}.path"
    identity = encoder_identity(roles.base.path, where=where, download=download)
    if identity is None:
        return None
    if latents_source != "data":
        del identity["vae"]
    return EncoderIdentity(roles.base_role, roles.base.path, identity)


def input_problems(
    cfg: RunConfig,
    *,
    prompts: Sequence[ValidationPrompt],
    rows: Sequence[Mapping[str, Any]],
    latents_source: LatentsSource | None,
) -> list[Problem]:
    """What is wrong with the run's roles together, its validation prompts and rows of its data; see WanConfig.preflight."""
    problems: list[Problem] = []
    size = SIZE.of_run(cfg.training)
    for prompt in prompts:
        try:
            fit_prompt(prompt, size, GEOMETRY)
        except UserError as error:
            problems += error.problems
    try:
        folder = open_roles(cfg).base
    except UserError as error:
        return problems + list(error.problems)
    for row in rows:
        try:
            stored_text(row, folder)
            if latents_source == "data":
                stored_latents(row, folder, cfg.training)
            elif latents_source == "zeros":
                data_free_shape(row, folder, cfg.training)
        except UserError as error:
            problems += error.problems
    return problems
