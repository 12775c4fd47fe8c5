"""What is wrong with a run although run.yaml itself is fine: its folder, its data and its prompts.

Nothing here loads weights. `check` reports all of it; training asks the same questions before it builds anything.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from fastvideo_core.checkpoint import storage
from fastvideo_core.config.base import PluginConfig
from fastvideo_core.config.check import run_notes
from fastvideo_core.config.output_folder import check_writable_folder
from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.sections import GuidedPipelineConfig, MethodConfig, PipelineConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.dispatch.own_folder import folder_problems
from fastvideo_core.dispatch.plugins import check_plugins
from fastvideo_core.dispatch.role_weights import with_base_paths
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem, UserError
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.tracking.wandb_login import FIX, wandb_login
from fastvideo_data.data_set import DataSet, EncodedBy
from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.schema import NORMALISED_KEY, TENSOR_NAMES
from fastvideo_data.validation_prompts import read_validation_prompts
from fastvideo_data.video_sizes import VideoSize

logger = logging.getLogger(__name__)


@runtime_checkable
class Preflight(Protocol):
    """What a family's `pipeline_config` class may offer: a look at the inputs of a run before weights are loaded."""

    def preflight(
        self,
        cfg: RunConfig,
        *,
        prompts: Sequence[ValidationPrompt],
        rows: Sequence[Mapping[str, Any]],
        latents_source: LatentsSource | None,
    ) -> list[Problem]:
        """What the family cannot use.

        Args:
            cfg: the run; every role's path is the pipeline that it rests on, also for roles from our checkpoints.
            prompts: of validation.
            rows: raw batches of one, one for each latent shape of the data; none when the family brings its own data.
            latents_source: what the method will ask of prepare_batch; None when only running it can tell.
        """
        ...


@runtime_checkable
class KnowsEncoders(Protocol):
    """What a family's `pipeline_config` class may offer: the encoders of the run's own pipeline."""

    def encoders(
        self, cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool
    ) -> EncoderIdentity | None:
        """The encoders whose output the run trains on, and its prompts go through.

        Args:
            cfg: as in `Preflight.preflight`.
            latents_source: likewise.
            download: whether weights may be fetched; those of a folder need not.

        Returns:
            None where their weights are not on this machine and may not be fetched.
        """
        ...


@runtime_checkable
class KnowsSizes(Protocol):
    """What a family's `pipeline_config` class may offer: how large the videos of the data are."""

    def data_sizes(self, cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> Sequence[VideoSize]:
        """The size in pixels of each row's latents.

        Args:
            cfg: as in `Preflight.preflight`.
            rows: likewise; nothing is wrong with them.
        """
        ...


def check_run(cfg: RunConfig, registry: PluginRegistry) -> None:
    """Everything that can be known of a run before weights are loaded.

    Raises:
        PluginError: a plug-in is broken or does not fit, with all of these; the rest needs them.
        ConfigError: with all else that is wrong.
    """
    notes = [*check_plugins(cfg, registry), *run_notes(cfg)]
    problems = output_problems(cfg)
    if not sys.stdin or not sys.stdin.isatty():  # on a terminal wandb asks
        problems += login_problems(cfg)
    rows: list[dict[str, Any]] = []
    made_by: Sequence[EncodedBy] = ()
    prompts: Sequence[ValidationPrompt] = ()
    try:
        prompts = validation_prompts(cfg)
        if cfg.training.data_path is not None:
            data = open_data(cfg, cfg.training.data_path)
            rows, made_by = data.examples(), data.encoders
            notes += normalisation_notes(cfg, data)
    except UserError as error:
        problems += error.problems
    problems += input_problems(cfg, prompts, rows)
    if not problems:
        notes += size_notes(cfg, rows)
        findings = compare_encoders(cfg, made_by, download=True)
        problems += findings.problems
        for note in (*notes, *findings.notes) if context.is_main_process() else ():
            logger.warning(note)
    if problems:
        raise ConfigError(problems)


def login_problems(cfg: RunConfig) -> list[Problem]:
    """Trackers that would refuse to start; the process that logs looks."""
    if "wandb" not in cfg.training.trackers or not context.is_main_process():
        return []
    login = wandb_login()
    if login.ok:
        return []
    fix = f"{FIX}, or remove wandb from training.trackers"
    return [Problem(f"wandb would not start: {login.text}", where="training.trackers", fix=fix)]


def device_notes(cfg: RunConfig) -> list[str]:
    """What of this machine the run could not be started on; another one may have more."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = cfg.training.num_gpus
    if not 0 < visible < wanted:
        return []
    return [f"training.num_gpus is {wanted}, and this machine shows {visible}: each process needs a GPU of its own"]


def size_notes(cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sizes of the run that the data has not: training takes the data as it is, and they count for validation alone."""
    if latents_source(cfg) != "data" or not rows or not isinstance(cfg.pipeline_config, KnowsSizes):
        return []
    sizes = cfg.pipeline_config.data_sizes(with_base_paths(cfg), rows)
    notes = []
    for key in ("height", "width", "num_frames"):
        name = f"num_{key.removeprefix('num_')}"
        asked = getattr(cfg.training, name)
        there = sorted({getattr(size, key) for size in sizes})
        if asked is not None and there and asked not in there:
            notes.append(
                f"training.{name} is {asked}, and the data's videos have {', '.join(map(str, there))}: training takes the "
                "data as it is (preprocess makes its size), and prompts that name no size are sampled with the run's"
            )
    return notes


def output_problems(cfg: RunConfig) -> list[Problem]:
    """An output_dir that cannot be written, is not the run's own, or that a new run would share with an earlier one."""
    problems = folder_problems(cfg)
    try:
        check_writable_folder(cfg.training.output_dir, "training.output_dir")
    except ConfigError as error:
        problems += error.problems
    try:
        check_fresh(cfg)
    except ConfigError as error:
        problems += error.problems
    return problems


def check_fresh(cfg: RunConfig) -> None:
    """A new run does not write among the checkpoints of an earlier one.

    Raises:
        ConfigError: it would.
    """
    args = cfg.training
    if args.resume_from_checkpoint is not None:
        return
    if earlier := storage.later_checkpoints(Path(args.output_dir), 0):
        raise ConfigError(
            Problem(
                found=f"training.output_dir {args.output_dir} already holds {earlier[-1].name}",
                where=cfg.source,
                allowed="a new folder for a new run",
                fix="go on with --resume latest, name another output_dir, or remove the old run",
            )
        )


def check_steps_left(cfg: RunConfig, start_step: int) -> None:
    """There is something to train after the checkpoint.

    Raises:
        ConfigError: the checkpoint is at or behind max_train_steps.
    """
    steps = cfg.training.max_train_steps
    if start_step >= steps:
        raise ConfigError(
            Problem(
                found=f"the checkpoint is at step {start_step}, and training.max_train_steps is {steps}",
                where=cfg.source,
                fix="raise max_train_steps to train on",
            )
        )


def validation_prompts(cfg: RunConfig) -> Sequence[ValidationPrompt]:
    """The prompts that the run will sample; none when it does not validate.

    Raises:
        DataError: the file cannot be used.
    """
    if not cfg.training.log_validation or cfg.training.validation_dataset_file is None:
        return ()
    return read_validation_prompts(cfg.training.validation_dataset_file)


def latents_source(cfg: RunConfig) -> LatentsSource | None:
    """Whether the method trains on the data's latents; None when it does not say."""
    config = cfg.method_config
    return config.latents_source() if isinstance(config, MethodConfig) else None


def open_data(cfg: RunConfig, path: str) -> DataSet:
    """The data set at a path, with the tensors that the run has a use for.

    Raises:
        DataError: it cannot be used.
    """
    unread = cfg.pipeline_config.unread_tensors() if isinstance(cfg.pipeline_config, PipelineConfig) else ()
    read = [name for name in TENSOR_NAMES if name not in unread and name != "pil_image"]
    return DataSet(path, wanted=("text_embedding",), optional=read)


def normalisation_notes(cfg: RunConfig, data: DataSet) -> list[str]:
    """What a run on the data's latents takes their normalisation to be, where a file does not say it."""
    if latents_source(cfg) == "zeros" or (file := data.unsaid_normalisation) is None:
        return []
    taken = ", ".join(f"{name} {'normalised' if is_so else 'un-normalised'}" for name, is_so in data.normalised.items())
    said = f"{file} does not say whether its latents are normalised: they are taken as FastVideo writes them ({taken})"
    return [f"{said}; if they are not, record {NORMALISED_KEY.decode()} in the files (docs/data.md)"]


def input_problems(
    cfg: RunConfig, prompts: Sequence[ValidationPrompt], rows: Sequence[Mapping[str, Any]]
) -> list[Problem]:
    """What the recipe's family finds wrong with prompts and data, if it looks.

    Args:
        prompts: of `validation_prompts`.
        rows: of `DataSet.examples`.
    """
    problems = unread_negative_prompts(prompts, cfg.pipeline_config, cfg.recipe.family)
    if not isinstance(cfg.pipeline_config, Preflight):
        return problems
    try:
        based = with_base_paths(cfg)
        found = cfg.pipeline_config.preflight(based, prompts=prompts, rows=rows, latents_source=latents_source(cfg))
        return problems + found
    except UserError as error:
        return problems + list(error.problems)


def unread_negative_prompts(prompts: Sequence[ValidationPrompt], config: PluginConfig, family: str) -> list[Problem]:
    """Prompts with a negative prompt of their own, where the family, of pipeline_config `config`, reads none."""
    if isinstance(config, GuidedPipelineConfig):
        return []
    found = f"the family '{family}' takes no negative prompt"
    return [
        Problem(found, prompt.where or "--negative-prompt", fix="leave it out")
        for prompt in prompts
        if prompt.negative_prompt is not None
    ]


@dataclass(frozen=True)
class EncoderFindings:
    """How the encoders that made a run's data compare with the run's own.

    Args:
        problems: data of other encoders.
        notes: what could not be compared, one sentence each.
    """

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def compare_encoders(cfg: RunConfig, made_by: Sequence[EncodedBy], *, download: bool) -> EncoderFindings:
    """Whether the run's data was made by the encoders of its own pipeline, if the family knows them.

    Args:
        made_by: of `DataSet.encoders`.
        download: whether the pipeline's weights may be fetched to tell.
    """
    if not made_by or not isinstance(cfg.pipeline_config, KnowsEncoders):
        return EncoderFindings()
    try:
        based = with_base_paths(cfg)
        own = cfg.pipeline_config.encoders(based, latents_source=latents_source(cfg), download=download)
    except UserError as error:
        return EncoderFindings(tuple(error.problems))
    if own is None:
        note = "the pipeline's encoders are not on this machine yet: training will compare them with the data's"
        return EncoderFindings(notes=(note,))
    problems = [problem for one in made_by if (problem := _made_by_others(cfg, one, own)) is not None]
    notes = [
        f"{one.file} does not say which encoders made it: training takes them to be those of roles.{own.role}.path "
        f"({own.path})"
        for one in made_by
        if not own.values.keys() & (one.encoder or {}).keys()
    ]
    return EncoderFindings(tuple(problems), tuple(notes))


def _made_by_others(cfg: RunConfig, made_by: EncodedBy, own: EncoderIdentity) -> Problem | None:
    stored = made_by.encoder or {}
    differences = [
        f"{key} {stored[key]} made it, but roles.{own.role}.path ({own.path}) has {value}"
        for key, value in own.values.items()
        if key in stored and stored[key] != value
    ]
    if not differences:
        return None
    return Problem(
        found="; ".join(differences),
        where=f"training.data_path ({cfg.training.data_path}), as {made_by.file} says",
        allowed="data that was preprocessed with the encoders of the run's own pipeline",
        fix=f"preprocess it again with --model {own.path}, or train the pipeline that it was made with",
    )
