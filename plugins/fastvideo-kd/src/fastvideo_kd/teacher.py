"""The teacher of `trajectories`: its network, its adapter, its prompts, and what identifies it."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from fastvideo_core import MethodConfig, RoleConfig, RunConfig, TrainingArgs
from fastvideo_core.config.run import RecipeConfig
from fastvideo_core.contracts.adapter import NumTrainTimesteps, PredictX0Guided, ShiftAndClampTimestep
from fastvideo_core.contracts.adapter_check import check_adapter
from fastvideo_core.contracts.family import ModelFamily, open_family
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.role_weights import load_role
from fastvideo_core.dispatch.trained_model import TrainedModel, open_trained_model
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, DataError, Problem
from fastvideo_data.data_set import DataSet
from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.family import ParquetFamily
from fastvideo_data.preprocessing.clips import PreprocessOptions
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.trajectories import STATES_OF, UnpackLatents
from fastvideo_kd.stored_steps import kept_steps, solver_timesteps, student_options, student_timesteps
from fastvideo_kd.trajectories_command import DENOISING_STEPS, ENCODED

ROLE = "teacher"
_VALUES = 16
"""Read of every parameter for the fingerprint: fine-tuning moves them all."""


class TeacherNeeds(NumTrainTimesteps, ShiftAndClampTimestep, PredictX0Guided, UnpackLatents, Protocol): ...


@dataclass(frozen=True)
class Teacher:
    """A network that samples.

    Args:
        adapter: of its family, with every member of TeacherNeeds and prepare_batch.
        handle: the role.
        cfg: the run that they were built for; it trains nothing.
        source: where the weights are from, in words.
        weights: a fingerprint of them.
        given: the stored tensors that the network is told of beside the text, such as an image's latents.
    """

    adapter: Any
    handle: RoleHandle
    cfg: RunConfig
    source: str
    weights: str
    given: tuple[str, ...] = ()


def check_options(args: argparse.Namespace) -> None:
    """The numbers make sense, and the family makes videos of the asked size, before anything is loaded.

    Raises:
        UserError: naming all that do not.
    """
    least = {"steps": 1, "batch_size": 1, "samples_per_file": 1, "num_gpus": 1, "guidance_scale": 0}
    problems = [
        Problem(f"is {getattr(args, name):g}", f"--{name.replace('_', '-')}", allowed=f"{value} or more")
        for name, value in least.items()
        if getattr(args, name) < value
    ]
    if args.flow_shift is not None and args.flow_shift <= 0:
        problems.append(Problem(f"is {args.flow_shift:g}", "--flow-shift", allowed="above 0"))
    if args.negative_prompt is not None and args.guidance_scale == 1:
        found = "nothing is guided at guidance 1, so that it would do nothing"
        problems.append(Problem(found, "--negative-prompt", fix="leave it out, or raise --guidance-scale"))
    if args.all_states:
        given = {"--denoising-steps": args.denoising_steps != DENOISING_STEPS, "--no-warp": args.no_warp}
        found = "does nothing with --all-states, which stores what any schedule needs"
        problems += [Problem(found, option, fix="leave it out") for option, is_given in given.items() if is_given]
    if problems:
        raise ConfigError(problems)
    student = None if args.all_states else student_options(args)
    model, family = _opened(args)
    cfg = _run_config(args, model, family)
    geometry = family.encoder(model.source.base, device=context.device()).geometry
    height, width, frames = cfg.training.num_height, cfg.training.num_width, cfg.training.num_frames
    geometry.check(height=height, width=width, num_frames=frames, where="--height, --width, --num-frames")
    if not isinstance(family, ParquetFamily):
        return
    if student is not None and (shift := family.timestep_shift(cfg)) is not None:
        kept_steps(solver_timesteps(shift, args.steps), student_timesteps(student, shift))
    shown = _given(family, cfg)
    if args.prompts.is_dir():
        prompts = DataSet(args.prompts, wanted=("text_embedding", *shown))
        _check_encoders(prompts, family.encoder_identity(cfg, latents_source="trajectory", download=True))
    elif shown:
        found = f"is no folder of clips, and the network of {model.source} is given their {' and '.join(shown)}"
        fix = f"fastvideo-distill preprocess --model {args.model} --input CLIPS --output FOLDER; then --prompts FOLDER"
        raise ConfigError(Problem(found, f"--prompts ({args.prompts})", fix=fix))


def _given(family: ModelFamily, cfg: RunConfig) -> tuple[str, ...]:
    """What the family wants of a row beside its text."""
    wanted = family.wanted_tensors(cfg) if isinstance(family, ParquetFamily) else ()
    return tuple(name for name in wanted if name != "text_embedding" and name not in STATES_OF)


def _check_encoders(prompts: DataSet, own: EncoderIdentity | None) -> None:
    """The prompts were encoded with the encoders of the teacher's pipeline, as far as both are known.

    Raises:
        DataError: they were not.
    """
    if own is None:
        return
    problems = [
        Problem(
            f"{one.file} was made with {key} {one.encoder[key]}, and the teacher's pipeline has {value}",
            str(prompts.path),
            fix=f"preprocess the prompts with --model {own.path}",
        )
        for one in prompts.encoders
        for key, value in own.values.items()
        if one.encoder and one.encoder.get(key, value) != value
    ]
    if problems:
        raise DataError(problems)


def encode_prompts(args: argparse.Namespace) -> None:
    """Encodes the prompts of a text file into a folder beside the data set, as `preprocess` does: only those that are new.

    Raises:
        UserError: the file cannot be used.
    """
    if args.prompts.is_dir():
        return
    model, family = _opened(args)
    encoder = family.encoder(model.source.base, device=context.device())
    options = PreprocessOptions(height=0, width=0, num_frames=0, prune=True)  # nobody else reads them
    preprocess(encoder, args.prompts, args.output / ENCODED, options)
    del encoder
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def open_prompts(args: argparse.Namespace, teacher: Teacher) -> DataSet:
    """The encoded prompts, with what the teacher is given besides.

    Raises:
        UserError: there are none.
    """
    folder = args.prompts if args.prompts.is_dir() else args.output / ENCODED
    if folder != args.prompts and not folder.is_dir():
        found = "the prompts are not encoded yet, which one process does before several sample"
        fix = f"fastvideo-distill preprocess --model {args.model} --input {args.prompts} --output FOLDER; then --prompts FOLDER"
        raise ConfigError(Problem(found, str(args.prompts), fix=fix))
    return DataSet(folder, wanted=("text_embedding", *teacher.given))


def open_teacher(args: argparse.Namespace) -> Teacher:
    """The network with its weights, on this process's device.

    Raises:
        UserError: the path, or the family, cannot be used for it.
    """
    model, family = _opened(args)
    cfg = _run_config(args, model, family)
    if problems := family.check_roles(cfg):
        raise ConfigError(problems)
    cfg = replace(cfg, pipeline_config=family.resolve(cfg, latents_source="zeros"))
    built = family.build(cfg)
    check_adapter(built.adapter, TeacherNeeds, method="trajectories", family=model.family)
    handle = built.bundle[ROLE]
    load_role(handle, model.source, family)
    for module in handle.modules.values():
        module.eval()
    if callable(start := getattr(built.adapter, "on_train_start", None)):
        start()  # encodes the negative prompt
    weights = fingerprint(handle.modules)
    return Teacher(built.adapter, handle, cfg, str(model.source), weights, _given(family, cfg))


def fingerprint(modules: dict[str, nn.Module]) -> str:
    """16 hexadecimal digits over every parameter's size and 16 values spread over it, rounded to bfloat16: the same for a copy
    under another name, or in bfloat16."""
    found = set()
    for module in modules.values():
        for parameter in module.parameters():
            flat = parameter.detach().reshape(-1)
            values = flat[:: max(1, flat.numel() // _VALUES)][:_VALUES].to("cpu", torch.bfloat16).contiguous()
            found.add(hashlib.sha256(f"{flat.numel()}".encode() + values.view(torch.uint8).numpy().tobytes()).digest())
    return hashlib.sha256(b"".join(sorted(found))).hexdigest()[:16]


def _opened(args: argparse.Namespace) -> tuple[TrainedModel, Any]:
    model = open_trained_model(args.model, args.registry, family=args.family, role=args.role)
    return model, open_family(model.family, args.registry, "encoder")


def _run_config(args: argparse.Namespace, model: TrainedModel, family: ModelFamily) -> RunConfig:
    """What the family builds the teacher for: one frozen role, no data, videos of the asked size."""
    given = {"flow_shift": args.flow_shift, "negative_prompt": args.negative_prompt}
    changes = {name: value for name, value in given.items() if value is not None}
    section = type(model.pipeline_config)
    if unknown := [name for name in changes if name not in section.model_fields]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
        raise ConfigError(Problem(f"the family '{model.family}' takes none", options, fix="leave it out"))
    pipeline_config = section.model_validate({**model.pipeline_config.model_dump(), **changes})
    cfg = RunConfig(
        recipe=RecipeConfig(family=model.family, method="trajectories"),
        roles={ROLE: RoleConfig(path=model.source.base, trainable=False)},
        training=TrainingArgs(
            output_dir=str(args.output),
            max_train_steps=1,
            seed=args.seed,
            mixed_precision=args.mixed_precision,
            num_height=args.height,
            num_width=args.width,
            num_frames=args.num_frames,
        ),
        pipeline_config=pipeline_config,
        method_config=MethodConfig(),
        callbacks={},
        source="the command line",
    )
    return _with_size(args, cfg, family)


def _with_size(args: argparse.Namespace, cfg: RunConfig, family: ModelFamily) -> RunConfig:
    """With the family's own size where the command line names none."""
    training, own = cfg.training, getattr(family, "video_size", lambda cfg: None)(cfg)
    sizes = {"num_height": "height", "num_width": "width", "num_frames": "num_frames"}
    missing = [name for name in sizes if getattr(training, name) is None]
    if missing and own is None:
        named = ", ".join(f"--{sizes[name].replace('_', '-')}" for name in missing)
        raise ConfigError(Problem(f"the family '{cfg.recipe.family}' names no size of its own", fix=f"add {named}"))
    changes = {name: getattr(own, sizes[name]) for name in missing}
    return replace(cfg, training=training.model_copy(update=changes))
