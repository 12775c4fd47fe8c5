"""The training loop: it sees a method and its batches, and nothing of roles' meaning or models."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.distributed import context
from fastvideo_core.errors import NonFiniteError, Problem
from fastvideo_core.method import DistillMethod
from fastvideo_core.optim.clip import clip_gradients
from fastvideo_core.tracker import Tracker
from fastvideo_core.tracking.build import build_tracker
from fastvideo_core.tracking.metrics import MetricMeans, phase_name, to_floats
from fastvideo_core.tracking.phases import phase_timer
from fastvideo_core.tracking.progress import Progress


class DistillTrainer:
    """Runs a method over batches for a number of steps.

    Args:
        training_args: the `training` section of run.yaml.
        config: the resolved run.yaml as plain data, for the trackers.
    """

    def __init__(self, training_args: TrainingArgs, config: Mapping[str, Any]) -> None:
        self.training_args = training_args
        self.tracker: Tracker = build_tracker(training_args, dict(config))
        self._timer = phase_timer(context.device())
        self._logged_step = 0

    def run(
        self,
        method: DistillMethod,
        dataloader: Iterable[Any],
        max_steps: int,
        start_step: int = 0,
        checkpoint_manager: CheckpointManager | None = None,
        callbacks: CallbackManager | None = None,
    ) -> None:
        """Trains from `start_step` (already done) to `max_steps`.

        Raises:
            NonFiniteError: when a logged loss or gradient norm is NaN or infinite.
        """
        callbacks = callbacks or CallbackManager({})
        step = self._logged_step = start_step
        try:
            method.set_tracker(self.tracker)
            method.on_train_start()
            callbacks.hook.train_start(method=method, start_step=start_step)
            if checkpoint_manager is not None:
                checkpoint_manager.attach(method, callbacks, dataloader)
                checkpoint_manager.resume()
            batches = endless(dataloader)
            if checkpoint_manager is not None:
                checkpoint_manager.restore_rng()  # making a dataloader's iterator may have drawn random numbers
            self.tracker.resume_after(start_step)
            progress = self._progress(max_steps, start_step)

            for step in range(start_step + 1, max_steps + 1):
                metrics = self._accumulate_gradients(method, batches, step)
                self._update(method, callbacks, step, metrics)
                callbacks.hook.step_end(method=method, step=step, metrics=metrics)
                self._log(method, step, max_steps, metrics, progress)
                self._validate(method, callbacks, step)
                if checkpoint_manager is not None and (checkpoint_manager.is_due(step) or step == max_steps):
                    require_finite(to_floats(metrics), step)
                    checkpoint_manager.save(step)

            callbacks.hook.train_end(method=method, step=step)
            progress.close()
        except BaseException as error:
            callbacks.hook.exception(method=method, step=step, error=error)
            raise
        finally:
            self.tracker.finish()

    # --- the parts of a step --------------------------------------------------------------------------------------

    def _accumulate_gradients(self, method: DistillMethod, batches: Iterator[Any], step: int) -> dict[str, Any]:
        """All rounds of one step: each phase is back-propagated before the next is computed."""
        rounds = self.training_args.gradient_accumulation_steps
        means = MetricMeans()
        for _ in range(rounds):
            result = method.single_train_step(next(batches), step, current_vsa_sparsity=self.training_args.VSA_sparsity)
            phases = iter([result]) if isinstance(result, tuple) else result
            self._timer.start()
            for loss_map, outputs, metrics in phases:
                method.backward(loss_map, outputs, grad_accum_rounds=rounds)
                means.add(loss_map, metrics)
                self._timer.stop(phase_name(loss_map))
                self._timer.start()
        return means.result()

    def _update(self, method: DistillMethod, callbacks: CallbackManager, step: int, metrics: dict[str, Any]) -> None:
        optimizers = method.get_optimizers(step)
        callbacks.hook.before_optimizer_step(method=method, step=step, optimizers=optimizers, metrics=metrics)
        norms = [clip_gradients(optimizer, method.max_grad_norm(optimizer)) for optimizer in optimizers]
        squares = [norm**2 for norm in norms if norm is not None]
        if squares:
            metrics["grad_norm"] = sum(squares[1:], squares[0]) ** 0.5
        metrics.update(method.learning_rates())
        self._timer.start()
        method.optimizers_schedulers_step(step)
        self._timer.stop("optimizer")
        callbacks.hook.after_optimizer_step(method=method, step=step, optimizers=optimizers)
        method.optimizers_zero_grad(step)

    def _log(
        self, method: DistillMethod, step: int, max_steps: int, metrics: Mapping[str, Any], progress: Progress
    ) -> None:
        if step % self.training_args.logging_steps and step != max_steps:
            return
        steps = step - self._logged_step
        seconds = {f"seconds/{name}": value / steps for name, value in self._timer.take().items()}
        self._logged_step = step
        values = {**to_floats(metrics), **seconds, **progress.measure(step)}
        self.tracker.log(values, step)
        progress.show(step, values)
        require_finite(values, step)

    def _validate(self, method: DistillMethod, callbacks: CallbackManager, step: int) -> None:
        args = self.training_args
        if not args.log_validation or step % args.validation_steps:
            return
        callbacks.hook.validation_start(method=method, step=step)
        try:
            method.log_validation(step)
        finally:
            callbacks.hook.validation_end(method=method, step=step)

    def _progress(self, max_steps: int, start_step: int) -> Progress:
        args = self.training_args
        samples = args.train_batch_size * args.gradient_accumulation_steps * context.world_size()
        return Progress(max_steps, start_step, samples, sys.stdout if context.is_main_process() else None)


def endless(dataloader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a dataloader, starting over when it ends; its first iterator is made at once.

    Raises:
        ValueError: when the dataloader gives no batch at all.
    """
    return _start_over(dataloader, iter(dataloader))


def _start_over(dataloader: Iterable[Any], iterator: Iterator[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in iterator:
            empty = False
            yield batch
        if empty:
            raise ValueError(f"{type(dataloader).__name__} gave no batch")
        iterator = iter(dataloader)


def require_finite(values: Mapping[str, float], step: int) -> None:
    """Stops the run when a loss or a gradient norm is no number any more; nothing after it could be trusted.

    Raises:
        NonFiniteError: naming the step and every such value.
    """
    bad = [
        name for name, value in values.items() if ("loss" in name or "grad_norm" in name) and not math.isfinite(value)
    ]
    if bad:
        raise NonFiniteError(
            [
                Problem(
                    found=f"{name} is {values[name]}",
                    where=f"step {step}",
                    fix="resume from the last checkpoint with a lower learning rate, or look at this step's data",
                )
                for name in bad
            ]
        )
