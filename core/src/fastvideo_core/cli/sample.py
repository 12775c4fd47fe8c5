"""`fastvideo-distill sample MODEL`: videos from prompts, in few or many steps."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvideo_core.cli.model_options import add_model_options
from fastvideo_core.cli.numbers import finite, seed, up_to
from fastvideo_core.config import limits
from fastvideo_core.launch.stdio import complain, say

if TYPE_CHECKING:  # torch is imported when sampling starts, not to show help
    from fastvideo_core.contracts.family import ModelFamily
    from fastvideo_core.contracts.sampler import ModelSampler, StudentSchedule
    from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
    from fastvideo_core.dispatch.trained_model import TrainedModel
    from fastvideo_core.registry.registry import PluginRegistry

PLAIN_STEPS, PLAIN_GUIDANCE = 50, 5.0
RUN_SIZES = {"height": "num_height", "width": "num_width", "num_frames": "num_frames"}
"""Sizes of a prompt, and what `training` calls them."""

SIZES = tuple(RUN_SIZES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `sample`."""
    add_model_options(parser)
    parser.add_argument("--prompt", action="append", default=[], help="what to show (repeatable)")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="validation JSON, or a text file with a prompt a line"
    )
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder for the videos (default: samples)")
    parser.add_argument(
        "--steps",
        type=up_to(limits.SAMPLING_STEPS),
        help="sample in so many steps with the family's own sampler, also prompts that name others",
    )
    parser.add_argument("--timesteps", help="sample in few steps at exactly these levels, for example 1000,750,500,250")
    parser.add_argument("--sampler", choices=("ode", "sde"), help="how few-step sampling moves between levels")
    parser.add_argument(
        "--guidance-scale",
        type=finite,
        help=f"w of u + w (c - u); 1 is none (default: 1 for a few-step student, else the run's, else {PLAIN_GUIDANCE:g})",
    )
    parser.add_argument(
        "--negative-prompt",
        metavar="TEXT",
        help="what guidance leads away from, for every prompt; `default` is the model's published one (default: the run's)",
    )
    parser.add_argument(
        "--height", type=up_to(limits.PIXELS), help="pixels (default: of the prompt, the run, the family)"
    )
    parser.add_argument("--width", type=up_to(limits.PIXELS), help="pixels (default: likewise)")
    parser.add_argument("--num-frames", type=up_to(limits.FRAMES), help="frames (default: likewise)")
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the first prompt, the next ones count up (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes an mp4 and a contact sheet per prompt, and says where and how."""
    from fastvideo_core.config.output_folder import check_writable_folder
    from fastvideo_core.contracts.family import open_family
    from fastvideo_core.contracts.validator import unread_negative_prompts
    from fastvideo_core.dispatch.role_weights import load_role
    from fastvideo_core.dispatch.trained_model import open_trained_model
    from fastvideo_core.distributed import context
    from fastvideo_core.errors import ConfigError, Problem

    _check_prompts(args)
    check_writable_folder(args.out, "--out")
    registry: PluginRegistry = args.registry
    model = open_trained_model(args.model, registry, family=args.family, role=args.role, weights=args.weights)
    family = open_family(model.family, registry, "sampler")
    asked = _prompts(args, family)
    prompts = [_sized(prompt, model.training) for prompt in asked]
    sampler = family.sampler(model.source.base, model.pipeline_config, device=context.device())
    student = _student(model, sampler)
    request = _request(args, model, sampler, student)
    if problems := unread_negative_prompts(asked, model.pipeline_config, model.family):
        raise ConfigError(problems)
    if args.negative_prompt is not None and request.guidance_scale <= 1:
        found = f"nothing is guided at guidance {request.guidance_scale:g}, so that it would do nothing"
        raise ConfigError(Problem(found, "--negative-prompt", fix="add --guidance-scale above 1, or leave it out"))
    validator = sampler.validator(prompts, seed=args.seed)
    say(f"{model.source}: {_describe(request)}")
    if student is not None and (departure := _departure(request, student)):
        complain(departure)
    for line in _sizes(asked, prompts, validator.prompts):
        say(line)
    load_role(sampler.handle, model.source)
    validator.log_validation(0, request)
    for index, prompt in enumerate(validator.prompts):
        steps = request.for_prompt(prompt).sampling_steps
        own = "" if steps == request.sampling_steps else f" ({steps} steps, as its prompt says)"
        say(f"{args.out / f'{index:02d}.mp4'}{own}")
    return 0


def _check_prompts(args: argparse.Namespace) -> None:
    """What is typed is text.

    Raises:
        ConfigError: it is not, or there is no prompt.
    """
    from fastvideo_core.contracts.validator import is_text
    from fastvideo_core.errors import ConfigError, Problem

    if not all(map(is_text, args.prompt)):
        found, allowed = "the prompt is empty, or no UTF-8 text", "a text that is not empty"
        raise ConfigError(Problem(found, where="--prompt", allowed=allowed))
    if args.negative_prompt and not is_text(args.negative_prompt):
        raise ConfigError(Problem("is blank, or no UTF-8 text", where="--negative-prompt", allowed='a text, or ""'))
    if not args.prompt and args.prompts is None:
        raise ConfigError(Problem("there is no prompt", fix='add --prompt "..." or --prompts FILE'))


def _prompts(args: argparse.Namespace, family: ModelFamily) -> list[ValidationPrompt]:
    from dataclasses import replace

    from fastvideo_core.contracts.validator import ValidationPrompt

    prompts = [ValidationPrompt(caption=text) for text in args.prompt]
    if args.prompts is not None:
        prompts += family.read_prompts(args.prompts)
    given = {name: getattr(args, name) for name in (*SIZES, "negative_prompt") if getattr(args, name) is not None}
    return [
        replace(prompt, seed=args.seed + index if prompt.seed is None else prompt.seed, **given)
        for index, prompt in enumerate(prompts)
    ]


def _sized(prompt: ValidationPrompt, training: Mapping[str, Any]) -> ValidationPrompt:
    """The prompt with the run's sizes where neither it nor the command line names one."""
    from dataclasses import replace

    missing = [name for name in SIZES if getattr(prompt, name) is None]
    of_run: dict[str, Any] = {name: training.get(RUN_SIZES[name]) for name in missing}
    return replace(prompt, **of_run)


def _sizes(
    asked: Sequence[ValidationPrompt],
    sized: Sequence[ValidationPrompt],
    fitted: Sequence[ValidationPrompt],
) -> list[str]:
    """Which sizes the videos have, and where they come from; every distinct one once."""
    lines = []
    for before, of_run, prompt in zip(asked, sized, fitted, strict=True):
        size = f"videos of {prompt.num_frames} frames, {prompt.height} x {prompt.width} pixels (height x width)"
        if None in (prompt.num_frames, prompt.height, prompt.width):
            size = "videos of the family's own size"
        elif _unnamed(of_run):
            names = ", ".join(f"--{name.replace('_', '-')}" for name in _unnamed(of_run))
            size += f"; not named by prompt or run, so the family's default: {names}"
        elif _unnamed(before):
            size += ", as the run was configured"
        lines.append(size)
    return list(dict.fromkeys(lines))


def _unnamed(prompt: ValidationPrompt) -> list[str]:
    return [name for name in SIZES if getattr(prompt, name) is None]


def _student(model: TrainedModel, sampler: ModelSampler) -> StudentSchedule | None:
    """What the network was distilled for, as the run of its checkpoint or its exported folder says; None for many steps."""
    from fastvideo_core.config.sections import PipelineConfig
    from fastvideo_core.contracts.sampler import StudentSchedule

    if model.student_schedule is None:
        return sampler.student
    schedule = model.student_schedule(sampler.shift_and_clamp_timestep)
    if schedule is None or model.source.checkpoint_role != "student":
        return None
    config = model.pipeline_config
    return StudentSchedule(schedule.timesteps, config.sampler_kind if isinstance(config, PipelineConfig) else "ode")


def _departure(request: ValidationRequest, student: StudentSchedule) -> str:
    """In words, where the request is not what the student was distilled for; empty where it is."""
    same = (request.sampling_timesteps, request.sampler_kind) == (student.timesteps, student.sampler_kind)
    if same and request.guidance_scale == 1:
        return ""
    levels = ", ".join(f"{t:g}" for t in student.timesteps)
    return (
        f"note: this student was distilled for guidance 1 and {len(student.timesteps)} steps at {levels} "
        f"({student.sampler_kind}); other settings make other videos, mostly worse ones: to sample it as it was trained, "
        "leave out --steps, --timesteps, --sampler and --guidance-scale"
    )


def _request(
    args: argparse.Namespace, model: TrainedModel, sampler: ModelSampler, student: StudentSchedule | None
) -> ValidationRequest:
    """What was asked for; else what the student was distilled for; else the family's many-step sampler."""
    from fastvideo_core.config.sections import PipelineConfig
    from fastvideo_core.contracts.validator import ValidationRequest
    from fastvideo_core.errors import ConfigError, Problem

    if args.steps is not None and args.timesteps is not None:
        raise ConfigError(Problem("--steps and --timesteps exclude each other", fix="give one of them"))
    if args.steps is not None and args.sampler is not None:
        raise ConfigError(Problem("--sampler is for few-step sampling", fix="use --timesteps, or leave --sampler out"))
    if args.steps is not None and args.steps < 1:
        raise ConfigError(Problem(f"--steps is {args.steps}", allowed="1 or more"))
    levels = _levels(args)
    if levels is None and args.steps is None and student is not None:
        levels = student.timesteps
    if levels is not None:
        config = model.pipeline_config
        own = config.sampler_kind if isinstance(config, PipelineConfig) else "ode"
        kind = args.sampler or (own if student is None else student.sampler_kind)
        guidance = 1.0 if args.guidance_scale is None else args.guidance_scale
        return ValidationRequest(
            sampler.handle, args.out, sampler_kind=kind, sampling_timesteps=levels, guidance_scale=guidance
        )
    if args.sampler is not None:
        raise ConfigError(Problem("--sampler is for few-step sampling", fix="add --timesteps"))
    training = model.training
    steps = args.steps or training.get("validation_sampling_steps", [PLAIN_STEPS])[0]
    guidance = training.get("validation_guidance_scale", [PLAIN_GUIDANCE])[0] if student is None else 1.0
    guidance = guidance if args.guidance_scale is None else args.guidance_scale
    fixed = args.steps is not None
    return ValidationRequest(sampler.handle, args.out, sampling_steps=steps, fixed_steps=fixed, guidance_scale=guidance)


def _levels(args: argparse.Namespace) -> tuple[float, ...] | None:
    from fastvideo_core.diffusion.rollout import FewStepSchedule
    from fastvideo_core.errors import ConfigError, Problem

    if args.timesteps is None:
        return None
    try:
        return FewStepSchedule.from_denoising_steps([finite(t) for t in args.timesteps.split(",")]).timesteps
    except (ValueError, argparse.ArgumentTypeError) as error:
        where = f"--timesteps {args.timesteps}"
        raise ConfigError(Problem(str(error), where=where, allowed="numbers such as 1000,750,500,250")) from None


def _describe(request: ValidationRequest) -> str:
    if request.sampling_timesteps is not None:
        levels = ", ".join(f"{t:g}" for t in request.sampling_timesteps)
        how = f"{len(request.sampling_timesteps)} steps at {levels} ({request.sampler_kind})"
    else:
        how = f"{request.sampling_steps} steps"
    return f"{how}, guidance {request.guidance_scale:g}"
