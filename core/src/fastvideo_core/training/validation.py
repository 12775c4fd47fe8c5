"""The validations of a run: due every so many steps, left when the run is asked to stop, no harm to it when they fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.validator import SamplingWatch, WatchedValidator
from fastvideo_core.distributed import context
from fastvideo_core.distributed.agreement import Crew
from fastvideo_core.errors import FastVideoError, Problem
from fastvideo_core.tracking.progress import Progress
from fastvideo_core.training.validation_watch import (
    FAILED_APART,
    FAILED_INSIDE,
    ValidationError,
    ValidationLeft,
    ValidationWatch,
    has_shared_networks,
)

logger = logging.getLogger(__name__)


class Validations:
    """Runs the validations of a training. Making one is collective.

    Args:
        requested: the request that this process has had and not acted on.
        progress: shows where the sampling stands.
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
        self._crew = Crew()
        self._failures = 0
        self._went_well = False

    def is_due(self, step: int) -> bool:
        """Whether the run validates after `step`."""
        return step % self._args.validation_steps == 0

    @property
    def may_part(self) -> bool:
        """Whether a failure may leave the processes unable to save: they share networks, and no validation went well yet."""
        return not self._went_well and self._crew.group is not None and has_shared_networks(self._method.bundle)

    def run(self, step: int) -> ValidationLeft | None:
        """Validates, with all processes; why that was left before its end, unless it was not.

        Raises:
            FastVideoError: the processes can do nothing together any more.
        """
        watch = ValidationWatch(
            self._method.bundle,
            self._crew,
            self._requested,
            self._progress.validating,
            step=step,
            max_steps=self._args.max_train_steps,
        )
        validator = self._method.validator
        left, started = None, time.perf_counter()
        try:
            if isinstance(validator, WatchedValidator):
                validator.watch = watch
            with watch.whole():
                self._callbacks.hook.validation_start(method=self._method, step=step)
                self._method.log_validation(step)
        except ValidationLeft as error:
            left = error
            if left.code == FAILED_INSIDE:
                watch.give_back_weights()
        finally:
            if isinstance(validator, WatchedValidator):
                validator.watch = SamplingWatch()
            self._callbacks.hook.validation_end(method=self._method, step=step)
        if left is None:
            self._went_well = True
            watch.over(time.perf_counter() - started)
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
