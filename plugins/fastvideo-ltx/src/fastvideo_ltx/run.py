"""A run as LTX sees it: its roles' pipelines, and what can be said of its data and prompts before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.sections import MethodConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import ConfigError, Problem, UserError
from fastvideo_data.data_set import DataSet
from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.video_sizes import VideoSize, fit_prompt
from fastvideo_diffusers.family_roles import FamilyRoles, open_family_roles, takes_many_steps
from fastvideo_diffusers.identity import encoder_identity
from fastvideo_diffusers.pipeline_files import check_undamaged
from fastvideo_diffusers.stored_tensors import stored_text
from fastvideo_ltx.batches import check_first_frames, data_free_video, frame_rates, stored_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.generation import Generation
from fastvideo_ltx.generations import open_folder
from fastvideo_ltx.schedule import is_dynamic, many_step_config, resolve_flow_shift

FAMILY = "ltx"
SAME_LATENT_SPACE = "pipelines of one generation with equal latents_mean and latents_std of the VAE and equal text"


class LtxRoles(FamilyRoles[LtxFolder]):
    """The run's roles that are LTX pipelines, all of one generation."""

    @property
    def generation(self) -> Generation:
        """Of all of them."""
        return self.base.generation


def open_roles(cfg: RunConfig) -> LtxRoles:
    """Reads the configuration files of every LTX role's pipeline.

    Raises:
        ConfigError: there is no such role, a role's path holds no LTX pipeline, roles do not share a latent space, or the
            run asks for streams that the pipelines do not have.
    """
    opened = open_family_roles(cfg, FAMILY, open_folder, same_latent_space=SAME_LATENT_SPACE)
    roles = LtxRoles(opened.folders, opened.base_role)
    check_streams(section(cfg), roles.base)
    return roles


def section(cfg: RunConfig) -> LtxConfig:
    """The run's pipeline_config; the defaults where another family's is in its place."""
    return cfg.pipeline_config if isinstance(cfg.pipeline_config, LtxConfig) else LtxConfig()


def check_streams(config: LtxConfig, folder: LtxFolder) -> None:
    """The pipeline makes what is asked for.

    Raises:
        ConfigError: it does not.
    """
    generation = folder.generation
    problems = []
    if lacking := [stream for stream in generation.chosen_streams(config) if stream not in generation.streams]:
        problems.append(
            Problem(
                f"{', '.join(lacking)} is asked for, but {folder.path} is {generation.name}",
                where="pipeline_config.streams",
                allowed=", ".join(generation.streams),
                fix="remove streams",
            )
        )
    elif config.audio_loss_weight != 1 and "audio" not in generation.chosen_streams(config):
        found = f"found {config.audio_loss_weight:g}, but no audio is trained"
        problems.append(Problem(found, where="pipeline_config.audio_loss_weight", fix="remove it"))
    if problems:
        raise ConfigError(problems)


def run_flow_shift(cfg: RunConfig, roles: LtxRoles) -> float:
    """The run's one shift.

    Raises:
        UserError: it depends on the number of tokens, and neither run nor data name a size.
    """
    config = section(cfg)
    tokens = resolve_shift_tokens(cfg, config, roles)
    return resolve_flow_shift(roles.base, config, tokens=0 if tokens is None else tokens)


def resolve_shift_tokens(cfg: RunConfig, config: LtxConfig, roles: LtxRoles | None = None) -> int | None:
    """The number of video tokens that the run's shift is taken at: those of the videos that it trains on.

    Data with several latent shapes counts with its longest. None where the shift does not depend on it.

    Raises:
        UserError: neither run nor data name a size.
    """
    if config.flow_shift is not None or config.shift_tokens is not None:
        return config.shift_tokens
    folder = (open_roles(cfg) if roles is None else roles).base
    if not is_dynamic(folder):
        return None
    source = cfg.method_config.latents_source() if isinstance(cfg.method_config, MethodConfig) else "data"
    training = cfg.training
    sizes = (training.num_height, training.num_width, training.num_frames, training.num_latent_t)
    if source == "zeros" and sizes[:2] != (None, None):
        return data_free_video({}, folder, training).video
    rows: list[dict[str, Any]] = []
    if training.data_path is not None:
        rows = DataSet(training.data_path, wanted=("text_embedding",), optional=("vae_latent",)).examples()
    if rows and all("vae_latent" in row for row in rows):
        shapes = [stored_video(row, folder, training).shape[2:] for row in rows]
        return int(max(frames * height * width for frames, height, width in shapes))
    return data_free_video({}, folder, training).video


def encoders(
    cfg: RunConfig, config: LtxConfig, *, latents_source: LatentsSource | None, download: bool
) -> EncoderIdentity | None:
    """What the run's data must have been encoded with; see LtxConfig.encoders."""
    roles = open_roles(cfg)
    unused = set()
    if latents_source != "data" and config.first_frame_probability == 0:
        unused.add("vae")
    if latents_source != "data" or "audio" not in roles.generation.chosen_streams(config):
        unused.add("audio_vae")
    wanted = [encoder for encoder in roles.generation.encoders if encoder.name not in unused]
    where = f"roles.{roles.base_role}.path"
    identity = encoder_identity(roles.base.path, wanted, where=where, download=download)
    if identity is None:
        return None
    values = {**identity, **roles.generation.text_settings(roles.base)}
    return EncoderIdentity(roles.base_role, roles.base.path, values)


def input_problems(
    cfg: RunConfig,
    config: LtxConfig,
    *,
    prompts: Sequence[ValidationPrompt],
    rows: Sequence[Mapping[str, Any]],
    latents_source: LatentsSource | None,
) -> list[Problem]:
    """What is wrong with the run's roles together, its validation prompts and rows of its data; see LtxConfig.preflight."""
    try:
        roles = open_roles(cfg)
    except UserError as error:
        return list(error.problems)
    problems = _weight_problems(cfg, roles)
    size = roles.generation.size.of_run(cfg.training)
    for prompt in prompts:
        try:
            fit_prompt(prompt, size, roles.generation.geometry)
        except UserError as error:
            problems += error.problems
    for row in rows:
        try:
            stored_text(row, width=roles.base.text_dim, path=roles.base.path)
            frame_rates(row, roles.generation.frame_rate(config), 1)
            if latents_source == "data" or config.first_frame_probability > 0:
                roles.generation.check_latents(row, roles.base, config, cfg.training)
            if latents_source == "zeros":
                layout = data_free_video(row, roles.base, cfg.training)
                if config.first_frame_probability > 0:
                    check_first_frames(stored_video(row, roles.base, cfg.training).shape[3:], layout)
        except UserError as error:
            problems += error.problems
    if rows and not problems:  # without rows the data could not be read, which is told already
        try:
            run_flow_shift(cfg, roles)
            if cfg.training.log_validation and takes_many_steps(cfg):
                many_step_config(roles.base, config)
        except UserError as error:
            problems += error.problems
    return problems


def _weight_problems(cfg: RunConfig, roles: LtxRoles) -> list[Problem]:
    problems: list[Problem] = []
    for role, path in roles.pipelines().items():
        where, is_base = f"roles.{role}.path", role == roles.base_role
        decodes = is_base and cfg.training.log_validation
        try:
            check_undamaged(path, roles.generation.components, where=where)
            roles.generation.check_weights(path, where=where, encodes=is_base, decodes=decodes)
        except UserError as error:
            problems += error.problems
    return problems


def data_sizes(cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[VideoSize]:
    """What the rows' latents are in pixels; see `dispatch.preflight.KnowsSizes`."""
    folder = open_roles(cfg).base
    shapes = [stored_video(row, folder, cfg.training).shape[2:] for row in rows if "vae_latent" in row]
    return [folder.video_size(shape) for shape in shapes]
