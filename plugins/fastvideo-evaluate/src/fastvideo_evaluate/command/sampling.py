"""Videos of every model with the same prompts and seeds: this process's share of them, as far as they are missing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastvideo_core.contracts.family import open_family
from fastvideo_core.contracts.validator import ModelSampler, ValidationPrompt, ValidationRequest
from fastvideo_core.dispatch.role_weights import load_role
from fastvideo_core.dispatch.trained_model import TrainedModel
from fastvideo_core.distributed import context
from fastvideo_core.registry.registry import PluginRegistry
from fastvideo_data.preprocessing.progress import progress
from fastvideo_evaluate.command.models import Candidate
from fastvideo_evaluate.command.videos import Videos

STEPS, GUIDANCE = 50, 5.0
"""Of a many-step model whose run and command line name none."""
_POLL = 0.5


@dataclass(frozen=True)
class Setting:
    """How a model is sampled where the command line says it; None leaves it to its run, or to what it was distilled for."""

    steps: int | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True)
class Shared:
    """What all models have in common: the prompts, and the seeds of each.

    Args:
        prompts: with a seed of their own each.
        seeds: how many of each prompt; they count up from its own.
    """

    prompts: Sequence[ValidationPrompt]
    seeds: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The numbers of prompt and seed of every video of a model."""
        return [(prompt, seed) for prompt in range(len(self.prompts)) for seed in range(self.seeds)]


def sample_missing(
    candidates: Sequence[Candidate],
    shared: Shared,
    settings: Mapping[str, Setting],
    videos: Videos,
    registry: PluginRegistry,
    *,
    rank: int = 0,
    size: int = 1,
) -> None:
    """Samples every size-th video from the rank-th on that is not there yet.

    Every video depends on its model, prompt and seed alone: not on how many processes there are.

    Raises:
        UserError: a model cannot be loaded, or cannot make a video of a prompt.
    """
    jobs = [
        (one, prompt, seed)
        for one in candidates
        for prompt, seed in shared.pairs[rank::size]
        if not videos.path(one.name, prompt, seed).exists()
    ]
    loaded = _Loaded(registry)
    for one, number, seed in progress(jobs, "video") if rank == 0 else jobs:
        loaded.show(one, settings[one.name], shared.prompts, videos)
        prompt = loaded.prompts[number]
        generator = torch.Generator().manual_seed((prompt.seed or 0) + seed)
        videos.add(one.name, number, seed, loaded.sample(prompt, generator))


def wait_for_all(candidates: Sequence[Candidate], shared: Shared, videos: Videos) -> None:
    """Until the other processes have made their shares; a launcher ends all when one of them fails."""
    wanted = [videos.path(one.name, *pair) for one in candidates for pair in shared.pairs]
    while not all(path.exists() for path in wanted):
        time.sleep(_POLL)


class _Loaded:
    """The one model that is in memory."""

    def __init__(self, registry: PluginRegistry) -> None:
        self._registry = registry
        self._shown: Candidate | None = None
        self._sampler: Any = None
        self._request: ValidationRequest | None = None
        self.prompts: Sequence[ValidationPrompt] = ()

    def show(self, one: Candidate, setting: Setting, prompts: Sequence[ValidationPrompt], videos: Videos) -> None:
        """Loads the model unless it is there; the networks of the one before are used again where they only get other weights."""
        if one is self._shown:
            return
        model, family = one.model, open_family(one.model.family, self._registry, "sampler")
        if self._shown is None or not _differ_in_weights_alone(self._shown.model, model):
            self._sampler = None  # its memory is needed
            self._sampler = family.sampler(model.source.base, model.pipeline_config, device=context.device())
        sampler: ModelSampler = self._sampler
        self.prompts = sampler.validator(prompts, seed=0).prompts
        self._request = request_of(model, sampler, setting)
        load_role(sampler.handle, model.source, family)
        videos.begin_model(one.name, told(self._request))
        self._shown = one

    def sample(self, prompt: ValidationPrompt, generator: torch.Generator) -> Any:
        assert self._request is not None
        devices = [context.device()] if context.device().type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            for module in self._sampler.handle.modules.values():
                module.eval()
            return self._sampler.sample(self._request.for_prompt(prompt), prompt, generator)


def request_of(model: TrainedModel, sampler: ModelSampler, setting: Setting) -> ValidationRequest:
    """As what it was distilled for; else in the steps, and with the guidance, of its run."""
    request, student = ValidationRequest(sampler.handle, Path()), model.student(sampler)
    if student is not None and setting.steps is None:
        few = replace(request, sampler_kind=student.sampler_kind, sampling_timesteps=student.timesteps)
        return replace(few, guidance_scale=setting.guidance_scale or 1.0)
    steps = setting.steps or model.training.get("validation_sampling_steps", [STEPS])[0]
    scale = model.training.get("validation_guidance_scale", [GUIDANCE])[0] if student is None else 1.0
    many = replace(request, sampling_steps=steps, fixed_steps=setting.steps is not None)
    return replace(many, guidance_scale=setting.guidance_scale or scale)


def told(request: ValidationRequest) -> dict[str, Any]:
    """How videos were sampled, for results.json."""
    levels = {"sampler": request.sampler_kind, "timesteps": request.sampling_timesteps}
    steps = {"steps": request.sampling_steps} if request.sampling_timesteps is None else levels
    return {**steps, "guidance_scale": request.guidance_scale}


def _differ_in_weights_alone(then: TrainedModel, now: TrainedModel) -> bool:
    """Whether both replace all weights of the same pipeline."""
    whole = all(one.source.checkpoint and one.source.lora is None and not one.source.merged for one in (then, now))
    same = (then.family, then.source.base, then.pipeline_config) == (now.family, now.source.base, now.pipeline_config)
    return whole and same
