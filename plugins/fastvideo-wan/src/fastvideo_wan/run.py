"""A run as Wan sees it: its roles' pipelines, and what can be said of its data and prompts before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import Problem, UserError
from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.video_sizes import VideoSize, fit_prompt
from fastvideo_diffusers.family_roles import FamilyRoles, open_family_roles, takes_many_steps
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, encoder_identity
from fastvideo_diffusers.pipeline_files import check_undamaged
from fastvideo_diffusers.stored_tensors import stored_text
from fastvideo_wan.batches import data_free_shape, stored_latents
from fastvideo_wan.config import WanConfig
from fastvideo_wan.folder import COMPONENTS, WanFolder, open_folder
from fastvideo_wan.loading import check_weights
from fastvideo_wan.schedule import many_step_scheduler, resolve_flow_shift
from fastvideo_wan.sizes import GEOMETRY, SIZE

FAMILY = "wan"
SAME_LATENT_SPACE = "pipelines with equal latents_mean and latents_std of the VAE, text_dim, text length and patch_size"


def open_roles(cfg: RunConfig) -> FamilyRoles[WanFolder]:
    """Reads the configuration files of every Wan role's pipeline.

    Raises:
        ConfigError: there is no such role, a role's path holds no Wan 2.1 text-to-video pipeline, or roles do not share
            a latent space.
    """
    return open_family_roles(cfg, FAMILY, open_folder, same_latent_space=SAME_LATENT_SPACE)


def encoders(cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool) -> EncoderIdentity | None:
    """What the run's data must have been encoded with; see WanConfig.encoders."""
    roles = open_roles(cfg)
    where = f"roles.{roles.base_role}.path"
    wanted = (VAE, TEXT_ENCODER) if latents_source == "data" else (TEXT_ENCODER,)
    identity = encoder_identity(roles.base.path, wanted, where=where, download=download)
    return None if identity is None else EncoderIdentity(roles.base_role, roles.base.path, identity)


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
        roles = open_roles(cfg)
    except UserError as error:
        return problems + list(error.problems)
    problems += _weight_problems(cfg, roles)
    folder = roles.base
    try:
        _check_schedules(cfg, folder)
    except UserError as error:
        problems += error.problems
    for row in rows:
        try:
            stored_text(row, width=folder.text_dim, path=folder.path)
            if latents_source == "data":
                stored_latents(row, folder, cfg.training)
            elif latents_source == "zeros":
                data_free_shape(row, folder, cfg.training)
        except UserError as error:
            problems += error.problems
    return problems


def _weight_problems(cfg: RunConfig, roles: FamilyRoles[WanFolder]) -> list[Problem]:
    problems: list[Problem] = []
    for role, path in roles.pipelines().items():
        where, is_base = f"roles.{role}.path", role == roles.base_role
        try:
            check_undamaged(path, COMPONENTS, where=where)
            check_weights(path, where=where, encodes=is_base, decodes=is_base and cfg.training.log_validation)
        except UserError as error:
            problems += error.problems
    return problems


def _check_schedules(cfg: RunConfig, folder: WanFolder) -> None:
    """The run has a shift, and validation of a student that takes many steps a scheduler.

    Raises:
        ConfigError: it has not.
    """
    config = cfg.pipeline_config if isinstance(cfg.pipeline_config, WanConfig) else WanConfig()
    flow_shift = resolve_flow_shift(folder, config)
    if cfg.training.log_validation and takes_many_steps(cfg):
        many_step_scheduler(folder, flow_shift)


def data_sizes(cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[VideoSize]:
    """What the rows' latents are in pixels; see `dispatch.preflight.KnowsSizes`."""
    folder = open_roles(cfg).base
    shapes = [stored_latents(row, folder, cfg.training).shape[2:] for row in rows if "vae_latent" in row]
    return [folder.video_size(shape) for shape in shapes]
