"""A validation that is going on: what asks it to end, what fails in it, and where it stands.

Before every call of a role's network, and after every prompt, the processes tell each other in one number whether one of
them was asked to stop or has failed. So they leave the sampling together, and none waits in a network for one that is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from fastvideo_core.contracts.roles import RoleManager
from fastvideo_core.contracts.validator import SamplingWatch, ValidationPrompt, ValidationRequest
from fastvideo_core.distributed import context
from fastvideo_core.distributed.agreement import Crew
from fastvideo_core.errors import FastVideoError, Problem
from fastvideo_core.launch.signals import STOPPED_BY
from fastvideo_core.tracking.display import Sampling

logger = logging.getLogger(__name__)

PROMPT_FAILED, FAILED, FAILED_INSIDE = 11, 12, 13
"""What a process tells the others besides requests, and above them: a prompt failed; all of the validation; a network that
is sharded, in its call, so that the processes' gathering of weights is in disorder."""

FAILED_APART = 14
"""Why a validation is left when processes failed that the others wait for: they do nothing together any more."""

_PATIENCE = 120.0
"""Seconds that a process that failed waits for the others, which may be decoding or writing a video, to hear of it."""


class ValidationError(FastVideoError):
    """A validation failed; the training's state is as before it."""

    title = "the validation failed"


class ValidationLeft(BaseException):
    """Ends a validation on all processes alike; no `except Exception` of a sampler holds it up.

    Args:
        code: the request, or what failed, that all processes know.
        problems: what the first process that failed says; empty after a request.
    """

    def __init__(self, code: int, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(code)
        self.code = code
        self.problems = problems


class ValidationWatch(SamplingWatch):
    """Looks after one validation.

    Args:
        bundle: the roles; every call of their networks is a moment to look.
        crew: of validations alone, so that nothing else is told in between.
        requested: the request that this process has had and not acted on.
        show: takes where the sampling stands.
        step, max_steps: of the training.
    """

    def __init__(
        self,
        bundle: RoleManager,
        crew: Crew,
        requested: Callable[[], int],
        show: Callable[[Sampling], None],
        *,
        step: int,
        max_steps: int,
    ) -> None:
        self._bundle = bundle
        self._crew = crew
        self._requested = requested
        self._show = show
        self._sampling = Sampling(step, max_steps)
        self._level: object = None  # the last call's timestep
        self._inside_sharded = False
        self._failures: list[Problem] = []
        self._videos = 0

    # --- what the validator says ------------------------------------------------------------------------------------------

    @contextmanager
    def prompt(self, request: ValidationRequest, prompt: ValidationPrompt, number: int, count: int) -> Iterator[None]:
        """Around everything that is done for a prompt; one that fails is kept for `raise_failures`, and the next may go on.

        Raises:
            ValidationLeft: the validation ends here.
        """
        steps = request.sampling_steps or len(request.sampling_timesteps or ())
        self._sampling = replace(
            self._sampling, label=request.label, prompt=number, prompts=count, sampling_step=0, sampling_steps=steps
        )
        self._level = None
        try:
            try:
                yield
            except Exception as error:
                self._fail(PROMPT_FAILED, error, prompt.where or f"validation prompt {number} of {count}")
            else:
                self._agree(0)
                self._videos += 1
        except _PromptLeft as left:
            self._failures += left.problems

    def raise_failures(self) -> None:
        """At the end of a request.

        Raises:
            ValidationError: prompts of it failed.
        """
        if failures := tuple(dict.fromkeys(self._failures)):
            self._failures.clear()
            raise ValidationError(failures)

    # --- what the trainer does --------------------------------------------------------------------------------------------

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Around the validation as a whole; calls of the roles' networks are watched inside.

        Raises:
            ValidationLeft: it was left, or failed.
        """
        with ExitStack() as hooks:
            for module in _networks(self._bundle):
                # Before FSDP's own hook, so that a network that is left here has nothing gathered.
                before = module.register_forward_pre_hook(self._before_call, prepend=True, with_kwargs=True)
                hooks.callback(before.remove)
                hooks.callback(module.register_forward_hook(self._after_call).remove)
            try:
                yield
            except Exception as error:
                self._fail(FAILED, error, "validation")
            else:
                self._agree(0)

    def give_back_weights(self) -> None:
        """After `FAILED_INSIDE`: parameters are the shards again, so that they can be saved."""
        for network in _networks(self._bundle):
            for part in network.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()

    def over(self, seconds: float) -> None:
        """Shows that it went well."""
        self._show(replace(self._sampling, prompts=self._videos, seconds=seconds))

    # --- between processes ------------------------------------------------------------------------------------------------

    def _before_call(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        sharded = isinstance(module, FSDPModule)
        if sharded or self._crew.group is None:  # of other networks the calls need not be the same on all processes
            self._agree(0)
        self._inside_sharded = sharded
        level = kwargs.get("timestep")
        if level is None or not _same(level, self._level):  # the two halves of guidance are one step
            self._level = level
            step = min(self._sampling.sampling_step + 1, self._sampling.sampling_steps)
            self._sampling = replace(self._sampling, sampling_step=step)
            if self._sampling.prompts:
                self._show(self._sampling)

    def _after_call(self, *_: object) -> None:
        self._inside_sharded = False

    def _fail(self, code: int, error: Exception, where: str) -> NoReturn:
        """Tells the others, and leaves with what the first process that failed says."""
        problems = _problems(error, where)
        if not isinstance(error, FastVideoError):
            logger.debug("%s", problems[0], exc_info=error)
        try:
            self._agree(FAILED_INSIDE if self._inside_sharded else code, problems)
        except ValidationLeft as left:
            raise left from error
        except TimeoutError:  # the others wait inside a network; they end when this process does
            raise ValidationLeft(FAILED_APART, problems) from error
        raise AssertionError("a failure is known to all")

    def _agree(self, code: int, problems: tuple[Problem, ...] = ()) -> None:
        """Tells the other processes `code`, or what this one is asked for.

        Raises:
            ValidationLeft: one of them is to leave, so that all do.
            TimeoutError: with `code`, the others do not answer.
        """
        codes = self._crew.tell(code or self._requested(), patience=_PATIENCE if code else None)
        highest = max(codes)
        if highest in STOPPED_BY:
            raise ValidationLeft(highest)
        if highest < PROMPT_FAILED:
            return
        first = next(said for said in self._crew.gather(problems) if said)
        if highest == FAILED_INSIDE and min(codes) < FAILED_INSIDE:
            highest = FAILED_APART
        raise (_PromptLeft if highest == PROMPT_FAILED else ValidationLeft)(highest, first)


class _PromptLeft(ValidationLeft):
    """Ends one prompt."""


def has_shared_networks(bundle: RoleManager) -> bool:
    """Whether networks of the roles are sharded, so that every process is needed for a call."""
    return any(isinstance(network, FSDPModule) for network in _networks(bundle))


def _networks(bundle: RoleManager) -> Iterator[nn.Module]:
    return (module for handle in bundle for module in handle.modules.values())


def _same(level: object, other: object) -> bool:
    if isinstance(level, Tensor) and isinstance(other, Tensor):
        return level is other or (level.device == other.device and torch.equal(level, other))
    return level == other if not isinstance(level, Tensor) and not isinstance(other, Tensor) else False


def _problems(error: Exception, where: str) -> tuple[Problem, ...]:
    """What `error` says; with the process, where there are several."""
    if isinstance(error, ValidationError):  # of prompts: it was told before
        return error.problems
    process = f" (process {context.rank()})" if context.world_size() > 1 else ""
    if isinstance(error, FastVideoError):
        return tuple(replace(one, where=f"{one.where or where}{process}") for one in error.problems)
    line = next(iter(str(error).splitlines()), "")[:300]
    fix = "--verbose shows where in the code"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        fix = "fewer frames or smaller videos in the prompts, or more processes to share the networks"
    found = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return (Problem(found, where + process, fix=fix),)
