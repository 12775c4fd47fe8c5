"""Runs the method's validation every so many steps; processes leave it together, on a signal or an error, and training goes on.

Before every call of a role's network, and after every prompt, the processes tell each other in one number whether one of
them was asked to stop or has failed. So they leave the sampling together, and none waits in a network for one that is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleManager
from fastvideo_core.contracts.validator import SamplingWatch, ValidationPrompt, ValidationRequest, WatchedValidator
from fastvideo_core.distributed import context
from fastvideo_core.distributed.agreement import SharedWork
from fastvideo_core.errors import FastVideoError, Problem
from fastvideo_core.launch.signals import STOPPED_BY
from fastvideo_core.tracking.display import Sampling
from fastvideo_core.tracking.progress import Progress

logger = logging.getLogger(__name__)

PROMPT_FAILED, FAILED, FAILED_INSIDE, FAILED_APART = 11, 12, 13, 14
"""What a process tells the others besides requests, and above them: a prompt failed; all of the validation; a network that
is sharded, in its call, so that the processes' gathering of weights is in disorder. The last is told to nobody: processes
failed that the others wait for, and they do nothing together any more."""

_PATIENCE = (
    120.0  # seconds that a process that failed waits for the others, which may be writing a video, to hear of it
)


class ValidationError(FastVideoError):
    """A validation failed; the training's state is as before it."""

    title = "the validation failed"


class ValidationLeft(BaseException):
    """Ends a validation on all processes alike; no `except Exception` of a sampler holds it up.

    `code` is the request, or what failed; `problems` are those of the first process that failed, none after a request.
    """

    def __init__(self, code: int, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(code)
        self.code = code
        self.problems = problems


class _PromptLeft(ValidationLeft):
    """Ends one prompt."""


class Validations(SamplingWatch):
    """Runs the validations of a training, and is the watch of a validator that takes one. Making one is collective.

    `requested` gives the request that this process has had and not acted on; `progress` shows where the sampling stands.
    """

    def __init__(
        self,
        args: TrainingArgs,
        method: DistillMethod,
        callbacks: CallbackManager,
        requested: Callable[[], int],
        progress: Progress,
    ) -> None:
        self._args = args
        self._method = method
        self._callbacks = callbacks
        self._requested = requested
        self._progress = progress
        self._work = SharedWork()  # of validations alone, so that nothing else is told in between
        self._failures = 0
        self._went_well = False

    # --- what the trainer asks for ----------------------------------------------------------------------------------------

    @property
    def may_part(self) -> bool:
        """Whether a failure may leave the processes unable to save: they share networks, and no validation went well yet."""
        return not self._went_well and self._work.group is not None and has_shared_networks(self._method.bundle)

    def run(self, step: int) -> ValidationLeft | None:
        """Validates, with all processes; why that was left before its end, unless it was not.

        Raises FastVideoError when the processes can do nothing together any more.
        """
        self._sampling = Sampling(step, self._args.max_train_steps)
        self._level: object = None  # the last call's timestep
        self._inside_sharded = False
        self._kept: list[Problem] = []  # of prompts
        self._videos = 0
        validator = self._method.validator
        left, started = None, time.perf_counter()
        try:
            if isinstance(validator, WatchedValidator):
                validator.watch = self
            with self._watched():
                self._callbacks.hook.validation_start(method=self._method, step=step)
                self._method.log_validation(step)
        except ValidationLeft as error:
            left = error
            if left.code == FAILED_INSIDE:
                self._reshard()
        finally:
            if isinstance(validator, WatchedValidator):
                validator.watch = SamplingWatch()
            self._callbacks.hook.validation_end(method=self._method, step=step)
        if left is None:
            self._went_well = True
            seconds = time.perf_counter() - started
            self._progress.validating(replace(self._sampling, prompts=self._videos, seconds=seconds))
        elif left.code == FAILED_APART:
            lost = "its processes wait for each other: nothing after the last checkpoint can be saved"
            raise FastVideoError([*left.problems, Problem(lost, fix="go on with --resume latest")])
        return left

    def failure(self, left: ValidationLeft) -> ValidationError | None:
        """Why the run must end after a validation that failed; None when it may go on, which is logged."""
        if left.code == FAILED_INSIDE:
            shared = "a network that several processes share failed in its call, and cannot be called again"
            return ValidationError([*left.problems, Problem(shared, "roles")])
        error = ValidationError(left.problems)
        if self._args.on_validation_error == "error":
            return error
        self._failures += 1
        if context.is_main_process():
            goes_on = "training goes on (training.on_validation_error: skip); validations that failed"
            logger.error("%s\n    %s: %d", error, goes_on, self._failures)
        return None

    # --- what the validator says ------------------------------------------------------------------------------------------

    @contextmanager
    def prompt(self, request: ValidationRequest, prompt: ValidationPrompt, number: int, count: int) -> Iterator[None]:
        """Around everything that is done for a prompt; one that fails is kept for `raise_failures`, and the next may go on."""
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
            self._agree(0)
            self._videos += 1
        except _PromptLeft as left:
            self._kept += left.problems

    def raise_failures(self) -> None:
        """At the end of a request; raises ValidationError when prompts of it failed."""
        if failures := tuple(dict.fromkeys(self._kept)):
            self._kept.clear()
            raise ValidationError(failures)

    # --- between processes ------------------------------------------------------------------------------------------------

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Around a whole validation: every call of a role's network is watched, and every failure becomes ValidationLeft."""
        with ExitStack() as hooks:
            for module in _networks(self._method.bundle):
                # Before FSDP's own hook, so that a network that is left here has nothing gathered.
                before = module.register_forward_pre_hook(self._before_call, prepend=True, with_kwargs=True)
                hooks.callback(before.remove)
                hooks.callback(module.register_forward_hook(self._after_call).remove)
            try:
                yield
            except Exception as error:
                self._fail(FAILED, error, "validation")
            self._agree(0)

    def _reshard(self) -> None:
        """After `FAILED_INSIDE`: parameters are shards again, so that they can be saved."""
        for network in _networks(self._method.bundle):
            for part in network.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()

    def _before_call(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        sharded = isinstance(module, FSDPModule)
        if sharded or self._work.group is None:  # of other networks the calls need not be the same on all processes
            self._agree(0)
        self._inside_sharded = sharded
        level = kwargs.get("timestep")
        if level is None or not _same(level, self._level):  # the two halves of guidance are one step
            self._level = level
            step = min(self._sampling.sampling_step + 1, self._sampling.sampling_steps)
            self._sampling = replace(self._sampling, sampling_step=step)
            if self._sampling.prompts:
                self._progress.validating(self._sampling)

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
        """Tells the other processes `code`, or what this one is asked for; raises ValidationLeft when one of them is to leave.

        Raises TimeoutError, with `code`, when the others do not answer.
        """
        codes = self._work.tell(code or self._requested(), patience=_PATIENCE if code else None)
        highest = max(codes)
        if highest in STOPPED_BY:
            raise ValidationLeft(highest)
        if highest < PROMPT_FAILED:
            return
        first = next(said for said in self._work.gather(problems) if said)
        if highest == FAILED_INSIDE and min(codes) < FAILED_INSIDE:
            highest = FAILED_APART
        raise (_PromptLeft if highest == PROMPT_FAILED else ValidationLeft)(highest, first)


def has_shared_networks(bundle: RoleManager) -> bool:
    """Whether networks of the roles are sharded, so that every process is needed for a call."""
    return any(isinstance(network, FSDPModule) for network in _networks(bundle))


def _networks(bundle: RoleManager) -> Iterator[nn.Module]:
    return (module for handle in bundle for module in handle.modules.values())


def _same(level: object, other: object) -> bool:
    if isinstance(level, Tensor) and isinstance(other, Tensor):
        return level is other or (level.device == other.device and torch.equal(level, other))
    return not isinstance(level, Tensor) and not isinstance(other, Tensor) and level == other


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
