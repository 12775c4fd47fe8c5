"""Runs the method's validation every so many steps; processes leave it together, on a signal or an error, and training goes on.

Before every call of a role's network, and after every prompt, the processes tell each other in one number whether one of
them was asked to stop or has failed: so none waits in a network for one that is gone.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.method import DistillMethod
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
processes share, in its call, so that their gathering of weights is in disorder. The last is told to nobody: processes
failed that the others wait for, and they do nothing together any more."""

_PATIENCE = 120.0  # seconds that a failed process waits for the others (they may be writing a video) to hear of it


class ValidationError(FastVideoError):
    """A validation failed; the training's state is as before it."""

    title = "the validation failed"


class ValidationLeft(BaseException):
    """Ends a prompt or a validation on all processes alike; no `except Exception` of a sampler holds it up.

    `code` is the request, or what failed; `problems` are those of the first process that failed, none after a request.
    """

    def __init__(self, code: int, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(code)
        self.code, self.problems = code, problems


@dataclass(eq=False)
class Validations(SamplingWatch):
    """Runs the validations of a training, and is the watch of a validator that takes one. Making one is collective.

    `requested` gives the request that this process has had and not acted on; `progress` shows where the sampling stands.
    """

    args: TrainingArgs
    method: DistillMethod
    callbacks: CallbackManager
    requested: Callable[[], int]
    progress: Progress

    def __post_init__(self) -> None:
        self._work = SharedWork()  # of validations alone, so that nothing else is told in between
        self._failures = 0
        self._went_well = False

    # --- what the trainer asks for ----------------------------------------------------------------------------------------

    @property
    def must_save_first(self) -> bool:
        """Whether a failure may leave the processes unable to save: they share networks, and no validation went well yet."""
        return not self._went_well and self._work.group is not None

    def run(self, step: int) -> int:
        """Validates, with all processes; the request that ended it early, else 0. A failure that the run may have is logged.

        Raises ValidationError where the run must end for it, its state being as before; another FastVideoError where the
        processes can do nothing together any more.
        """
        self._sampling = Sampling(step, self.args.max_train_steps)
        self._timestep: object = None  # of the last call
        self._inside_shared = False
        self._kept: list[Problem] = []  # of prompts
        self._videos, started = 0, time.perf_counter()
        try:
            with self._watched(), self._told(FAILED, "validation"):
                self.callbacks.hook.validation_start(method=self.method, step=step)
                self.method.log_validation(step)
            self._went_well = True
            seconds = time.perf_counter() - started
            self.progress.validating(replace(self._sampling, prompts=self._videos, seconds=seconds))
        except ValidationLeft as left:
            if left.code in STOPPED_BY:
                return left.code
            self._take_failure(left)
        finally:
            self.callbacks.hook.validation_end(method=self.method, step=step)
        return 0

    def _take_failure(self, left: ValidationLeft) -> None:
        """Raises what ends the run; logs what does not."""
        if left.code == FAILED_APART:
            lost = "its processes wait for each other: nothing after the last checkpoint can be saved"
            raise FastVideoError([*left.problems, Problem(lost, fix="go on with --resume latest")]) from left.__cause__
        if left.code == FAILED_INSIDE:
            for part in self.method.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()  # so that its parameters can be saved
            shared = "a network that several processes share failed in its call, and cannot be called again"
            raise ValidationError([*left.problems, Problem(shared, "roles")]) from left.__cause__
        error = ValidationError(left.problems)
        if self.args.on_validation_error == "error":
            raise error from left.__cause__
        self._failures += 1
        if context.is_main_process():
            goes_on = "training goes on (training.on_validation_error: skip); validations that failed"
            logger.error("%s\n    %s: %d", error, goes_on, self._failures)

    # --- what the validator says ------------------------------------------------------------------------------------------

    @contextmanager
    def prompt(self, request: ValidationRequest, prompt: ValidationPrompt, number: int, count: int) -> Iterator[None]:
        """Around everything that is done for a prompt; one that fails is kept for `raise_failures`, and the next may go on."""
        steps = request.sampling_steps or len(request.sampling_timesteps or ())
        self._sampling = replace(
            self._sampling, label=request.label, prompt=number, prompts=count, sampling_step=0, sampling_steps=steps
        )
        self._timestep = None
        try:
            with self._told(PROMPT_FAILED, prompt.where or f"validation prompt {number} of {count}"):
                yield
            self._videos += 1
        except ValidationLeft as left:
            if left.code != PROMPT_FAILED:
                raise
            self._kept += left.problems

    def raise_failures(self) -> None:
        """At the end of a request; raises ValidationError when prompts of it failed."""
        if failures := tuple(dict.fromkeys(self._kept)):
            self._kept.clear()
            raise ValidationError(failures)

    # --- between processes ------------------------------------------------------------------------------------------------

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Inside, prompts and every call of a role's network are watched."""
        validator = self.method.validator
        with ExitStack() as stack:
            if isinstance(validator, WatchedValidator):
                validator.watch = self
                stack.callback(setattr, validator, "watch", SamplingWatch())
            for module in dict.fromkeys(one for handle in self.method.bundle for one in handle.modules.values()):
                # Before FSDP's own hook, so that a network that is left here has nothing gathered.
                before = module.register_forward_pre_hook(self._before_call, prepend=True, with_kwargs=True)
                stack.callback(before.remove)
                stack.callback(module.register_forward_hook(self._after_call).remove)
            yield

    def _before_call(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._agree(0)
        self._inside_shared = self._work.group is not None
        timestep = kwargs.get("timestep")
        timestep = timestep.tolist() if isinstance(timestep, Tensor) else timestep
        if timestep is None or timestep != self._timestep:  # the two halves of guidance are one step
            self._timestep = timestep
            step = min(self._sampling.sampling_step + 1, self._sampling.sampling_steps)
            self._sampling = replace(self._sampling, sampling_step=step)
            if self._sampling.prompts:
                self.progress.validating(self._sampling)

    def _after_call(self, *_: object) -> None:
        self._inside_shared = False

    @contextmanager
    def _told(self, code: int, where: str) -> Iterator[None]:
        """Around a share of the work: ValidationLeft on all processes when one of them failed, as `code`, or is asked to stop."""
        try:
            yield
        except Exception as error:
            problems = _problems(error, where)
            if not isinstance(error, FastVideoError):
                logger.debug("%s", problems[0], exc_info=error)
            try:
                self._agree(FAILED_INSIDE if self._inside_shared else code, problems)
            except ValidationLeft as left:
                raise left from error
            except TimeoutError:  # the others wait inside a network; they end when this process does
                raise ValidationLeft(FAILED_APART, problems) from error
        self._agree(0)

    def _agree(self, code: int, problems: tuple[Problem, ...] = ()) -> None:
        """Tells the other processes `code`, or what this one is asked for; raises ValidationLeft when one of them is to leave.

        Raises TimeoutError, with `code`, when the others do not answer.
        """
        codes = self._work.tell(code or self.requested(), patience=_PATIENCE if code else None)
        highest = max(codes)
        if highest in STOPPED_BY:
            raise ValidationLeft(highest)
        if highest >= PROMPT_FAILED:
            first = next(said for said in self._work.gather(problems) if said)
            apart = highest == FAILED_INSIDE and min(codes) < FAILED_INSIDE
            raise ValidationLeft(FAILED_APART if apart else highest, first)


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
