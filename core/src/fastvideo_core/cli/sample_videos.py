"""The work of the command `sample` (its options are in sample.py): makes the request that they ask for, and the videos."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastvideo_core.cli.options import finite
from fastvideo_core.cli.sample import PLAIN_GUIDANCE
from fastvideo_core.config.output_folder import check_writable_folder
from fastvideo_core.config.run import MergedLora
from fastvideo_core.contracts.family import ModelFamily, open_family
from fastvideo_core.contracts.roles import OwnWeights
from fastvideo_core.contracts.validator import (
    ModelSampler,
    StudentSchedule,
    ValidationPrompt,
    ValidationRequest,
    is_text,
    unread_negative_prompts,
)
from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind
from fastvideo_core.dispatch.role_weights import load_role
from fastvideo_core.dispatch.trained_model import TrainedModel, open_trained_model
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.launch.stdio import complain, say
from fastvideo_core.registry.registry import PluginRegistry

PLAIN_STEPS = 50
SIZES = {"height": "num_height", "width": "num_width", "num_frames": "num_frames"}  # of a prompt, and of `training`
REPLACED = (*SIZES, "negative_prompt", "image_path", "last_image_path")  # of every prompt, where an option names it


def sample(args: argparse.Namespace, registry: PluginRegistry) -> list[Path]:
    """Writes an mp4 and a contact sheet per prompt, and says where and how; the mp4 files."""
    _check_prompts(args)
    check_writable_folder(args.out, "--out")
    model = open_trained_model(args.model, registry, family=args.family, role=args.role, weights=args.weights)
    if args.upsampler is not None:
        if not hasattr(model.pipeline_config, "upsampler"):
            raise ConfigError(Problem(f"'{model.family}' samples in one stage", "--upsampler", fix="leave it out"))
        two_stages = model.pipeline_config.model_copy(update={"upsampler": args.upsampler})
        model = replace(model, pipeline_config=two_stages)
    family = open_family(model.family, registry, "sampler")
    asked = _prompts(args, family)
    sizes: dict[str, Any] = {name: model.training.get(of_run) for name, of_run in SIZES.items()}
    prompts = [replace(prompt, **{name: sizes[name] for name in _unnamed(prompt)}) for prompt in asked]
    model = _with_lora(args, model, family)
    sampler = family.sampler(model.source.base, model.pipeline_config, device=context.device())
    student = model.student(sampler)
    request = _request(args, model, sampler, student)
    if problems := unread_negative_prompts(asked, model.pipeline_config, model.family):
        raise ConfigError(problems)
    if args.negative_prompt is not None and request.guidance_scale <= 1:
        found = f"nothing is guided at guidance {request.guidance_scale:g}, so that it would do nothing"
        raise ConfigError(Problem(found, "--negative-prompt", fix="add --guidance-scale above 1, or leave it out"))
    validator = sampler.validator(prompts, seed=args.seed)
    timesteps, kind, guidance = request.sampling_timesteps, request.sampler_kind, request.guidance_scale
    steps = f"{request.sampling_steps} steps" if timesteps is None else _few(timesteps, kind)
    say(f"{model.source}: {steps}, guidance {guidance:g}")
    if student is not None and (timesteps, kind, guidance) != (student.timesteps, student.sampler_kind, 1):
        distilled = f"this student was distilled for guidance 1 and {_few(student.timesteps, student.sampler_kind)}"
        fix = "to sample it as it was trained, leave out --steps, --timesteps, --sampler and --guidance-scale"
        complain(f"note: {distilled}; other settings make other videos, mostly worse ones: {fix}")
    for line in dict.fromkeys(map(_size, asked, prompts, validator.prompts)):
        say(line)
    load_role(sampler.handle, model.source, family)
    validator.log_validation(0, request)
    videos = [args.out / f"{index:02d}.mp4" for index in range(len(validator.prompts))]
    for video, prompt in zip(videos, validator.prompts, strict=True):
        count = request.for_prompt(prompt).sampling_steps
        own = "" if count == request.sampling_steps else f" ({count} steps, as its prompt says)"
        say(f"{video}{own}")
    return videos


def _with_lora(args: argparse.Namespace, model: TrainedModel, family: ModelFamily) -> TrainedModel:
    """The model with the LoRA files of the command line, each of which was looked at."""
    if args.lora_scale is not None and not args.lora:
        raise ConfigError(Problem("there is no --lora", f"--lora-scale {args.lora_scale:g}", fix="leave it out"))
    scale, merged = 1.0 if args.lora_scale is None else args.lora_scale, model.source.merged
    for given in args.lora:
        module, _, path = ("", "", given) if Path(given).exists() else given.rpartition("=")
        file = MergedLora(path=path, scale=scale, module=module or None)
        merged += (family.merge_lora(model.source.base, OwnWeights({}), file, where=f"--lora {given}")[1],)
    return replace(model, source=replace(model.source, merged=merged))


def _check_prompts(args: argparse.Namespace) -> None:
    if not all(map(is_text, args.prompt)):
        raise ConfigError(Problem("the prompt is empty, or no UTF-8 text", "--prompt", "a text that is not empty"))
    if args.negative_prompt and not is_text(args.negative_prompt):
        raise ConfigError(Problem("is blank, or no UTF-8 text", where="--negative-prompt", allowed='a text, or ""'))
    if not args.prompt and args.prompts is None:
        raise ConfigError(Problem("there is no prompt", fix='add --prompt "..." or --prompts FILE'))


def _prompts(args: argparse.Namespace, family: ModelFamily) -> list[ValidationPrompt]:
    prompts = [ValidationPrompt(caption=text) for text in args.prompt]
    if args.prompts is not None:
        prompts += family.read_prompts(args.prompts)
    given = {name: getattr(args, name) for name in REPLACED if getattr(args, name) is not None}
    return [replace(p, seed=args.seed + i if p.seed is None else p.seed, **given) for i, p in enumerate(prompts)]


def _size(asked: ValidationPrompt, sized: ValidationPrompt, fitted: ValidationPrompt) -> str:
    """The size of a prompt's video, and where it comes from."""
    if _unnamed(fitted):
        return "videos of the family's own size"
    text = f"videos of {fitted.num_frames} frames, {fitted.height} x {fitted.width} pixels (height x width)"
    if unnamed := _unnamed(sized):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in unnamed)
        return f"{text}; not named by prompt or run, so the family's default: {names}"
    return f"{text}, as the run was configured" if _unnamed(asked) else text


def _unnamed(prompt: ValidationPrompt) -> list[str]:
    return [name for name in SIZES if getattr(prompt, name) is None]


def _request(
    args: argparse.Namespace, model: TrainedModel, sampler: ModelSampler, student: StudentSchedule | None
) -> ValidationRequest:
    """What was asked for; else what the student was distilled for; else the family's many-step sampler."""
    if args.steps is not None and args.steps < 1:
        raise ConfigError(Problem(f"--steps is {args.steps}", allowed="1 or more"))
    timesteps = None if args.timesteps is None else _timesteps(args.timesteps)
    if timesteps is None and args.steps is None and student is not None:
        timesteps = student.timesteps
    if timesteps is None and args.sampler is not None:
        raise ConfigError(Problem("--sampler is for few-step sampling", fix="use --timesteps, or leave --sampler out"))
    guidance = args.guidance_scale
    if guidance is None:
        is_few_step = timesteps is not None or student is not None
        guidance = 1.0 if is_few_step else model.training.get("validation_guidance_scale", [PLAIN_GUIDANCE])[0]
    if (second := args.guidance_scale_2) is not None and len(sampler.handle.modules) == 1:
        raise ConfigError(Problem("the model has one network", "--guidance-scale-2", fix="leave it out"))
    request = ValidationRequest(sampler.handle, args.out, guidance_scale=guidance, guidance_scale_2=second)
    if timesteps is None:
        steps = args.steps or model.training.get("validation_sampling_steps", [PLAIN_STEPS])[0]
        return replace(request, sampling_steps=steps, fixed_steps=args.steps is not None)
    configured: SamplerKind = getattr(model.pipeline_config, "sampler_kind", "ode")
    kind = args.sampler or (configured if student is None else student.sampler_kind)
    return replace(request, sampler_kind=kind, sampling_timesteps=timesteps)


def _timesteps(typed: str) -> tuple[float, ...]:
    try:
        return FewStepSchedule.from_denoising_steps([finite(t) for t in typed.split(",")]).timesteps
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ConfigError(Problem(str(error), f"--timesteps {typed}", "numbers such as 1000,750,500,250")) from None


def _few(timesteps: tuple[float, ...], kind: SamplerKind | None) -> str:
    return f"{len(timesteps)} steps at {', '.join(f'{t:g}' for t in timesteps)} ({kind})"
