"""The training loop: it sees a method and its batches, and nothing of roles' meaning or models."""

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.stateful import Stateful

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.checkpoint.storage import CheckpointWriteError, checkpoint_path
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.tracker import Tracker
from fastvideo_core.distributed import context
from fastvideo_core.distributed.context import Mesh
from fastvideo_core.errors import FastVideoError, NonFiniteError, Problem, RunStopped
from fastvideo_core.launch.signals import SAVE, STOPPED_BY, RunSignals
from fastvideo_core.placing.shard import set_gradient_sync
from fastvideo_core.tracking.build import build_tracker
from fastvideo_core.tracking.display import Display, display_for
from fastvideo_core.tracking.metrics import MetricMeans, phase_name, to_floats
from fastvideo_core.tracking.progress import PhaseTimer, Progress
from fastvideo_core.training.updates import Updates, clip_gradients
from fastvideo_core.training.validation import ValidationError, Validations

logger = logging.getLogger(__name__)


class DistillTrainer:
    """Runs a method over batches for a number of steps.

    `config` is the resolved run.yaml as plain data, for the trackers. `display` shows logged steps; None is a bar on a terminal
    and lines in a file, by the main process alone.
    """

    def __init__(self, training_args: TrainingArgs, config: Mapping[str, Any], display: Display | None = None) -> None:
        self.training_args = training_args
        self._display = display or (display_for(sys.stdout) if context.is_main_process() else Display())
        self.tracker: Tracker = build_tracker(training_args, dict(config))
        self._timer = PhaseTimer(context.device())
        self._logged_step = 0
        self._unlogged = MetricMeans()

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

        Raises, the step being saved: NonFiniteError after more than `max_skipped_steps` steps in a row were skipped, with the
        weights from before them; ValidationError when one failed that may not (`on_validation_error`); RunStopped after
        SIGTERM, SIGHUP or SIGINT.
        """
        args, manager = self.training_args, checkpoint_manager
        self._method, self._dataloader, self._manager = method, dataloader, manager
        self._callbacks = callbacks or CallbackManager({})
        hook = self._callbacks.hook
        step = self._logged_step = start_step
        leaves_together = False
        try:
            with RunSignals() as signals:
                method.set_tracker(self.tracker)
                method.on_train_start()
                hook.train_start(method=method, start_step=start_step)
                if manager is not None:
                    manager.attach(method, self._callbacks, dataloader)
                    if start_step > 0 and not isinstance(dataloader, Stateful):
                        logger.warning("the dataloader keeps no position (it has no state_dict): its data starts over")
                batches = endless(dataloader)
                if manager is not None:
                    manager.restore_rng()  # making a dataloader's iterator may have drawn random numbers
                self.tracker.resume_after(start_step)
                samples = args.train_batch_size * args.gradient_accumulation_steps * Mesh.current(args).data_size
                interruptions = {"validation": args.validation_steps if args.log_validation else 0}
                interruptions["checkpoint"] = args.training_state_checkpointing_steps
                self._progress = Progress(max_steps, start_step, samples, self._display, interruptions)
                validations = None
                if args.log_validation:
                    validations = Validations(args, method, self._callbacks, lambda: signals.request, self._progress)
                self._updates = Updates(args.max_skipped_steps, method, self._callbacks)

                signals.begun = True
                for step in range(start_step + 1, max_steps + 1):
                    metrics, losses = self._accumulate_gradients(batches, step)
                    request = signals.take()
                    if manager is not None and manager.poll():
                        request = max(request, SAVE)
                    request = self._update(step, metrics, losses, request)
                    hook.step_end(method=method, step=step, metrics=metrics)
                    last = step == max_steps or self._callbacks.stops(step)
                    if args.logging_steps > 1:
                        self._unlogged.add({}, metrics)
                    if last or step % args.logging_steps == 0:
                        self._log(step, metrics)
                    self._save(step, request, is_last=last)
                    if validations is not None and step % args.validation_steps == 0 and request not in STOPPED_BY:
                        self._validate(validations, step, is_last=last)
                    if last:
                        break

                if manager is not None:
                    manager.finish()
                hook.train_end(method=method, step=step)
                self._display.close()
        except BaseException as error:
            # on all of its processes alike, at the same step
            leaves_together = isinstance(error, (RunStopped, NonFiniteError, CheckpointWriteError, ValidationError))
            self._display.close()
            hook.exception(method=method, step=step, error=error)
            if manager is not None:
                manager.abandon()
            raise
        finally:
            self.tracker.finish()
            if leaves_together:
                # A launcher ends the others when the first process has left: not before the main one is ready.
                with suppress(RuntimeError):  # one is gone already: there is nothing left to wait for
                    context.barrier()

    # --- the parts of a step --------------------------------------------------------------------------------------

    def _accumulate_gradients(self, batches: Iterator[Any], step: int) -> tuple[dict[str, Any], list[Tensor]]:
        """All rounds of one step, each phase back-propagated before the next is computed; metrics, and all losses."""
        method, args, rounds = self._method, self.training_args, self.training_args.gradient_accumulation_steps
        means, losses = MetricMeans(), []
        for round_number in range(1, rounds + 1):
            if rounds > 1 and not args.sync_gradients_every_round:
                set_gradient_sync(method.bundle, enabled=round_number == rounds)
            batch = next(batches)
            self._callbacks.hook.before_round(method=method, step=step, batch=batch)
            self._timer.start()
            result = method.single_train_step(batch, step, current_vsa_sparsity=args.vsa_sparsity_at(step))
            phases = iter([result]) if isinstance(result, tuple) else result
            weight = batch.get("data_loss_weight", 1) if isinstance(batch, Mapping) else 1  # of the batch's source
            for loss_map, outputs, metrics in phases:
                weighted = {**loss_map, "total_loss": loss_map["total_loss"] * weight} if weight != 1 else loss_map
                method.backward(weighted, outputs, grad_accum_rounds=rounds)
                means.add(loss_map, metrics)
                losses += [loss.detach() for loss in loss_map.values()]
                self._timer.stop(phase_name(loss_map))
                self._timer.start()
        return means.result(), losses

    def _update(self, step: int, metrics: dict[str, Any], losses: list[Tensor], request: int) -> int:
        """Clips, and steps what is due; the highest request of all processes."""
        method, optimizers = self._method, self._method.get_optimizers(step)
        self._callbacks.hook.before_optimizer_step(method=method, step=step, optimizers=optimizers, metrics=metrics)
        clipped = {optimizer: clip_gradients(optimizer, method.max_grad_norm(optimizer)) for optimizer in optimizers}
        norms = {optimizer: norm for optimizer, norm in clipped.items() if norm is not None}
        if norms:
            metrics["grad_norm"] = _joint(list(norms.values()))
        for handle in method.bundle:
            if own := [norms[optimizer] for optimizer in handle.optimizers.values() if optimizer in norms]:
                metrics[f"grad_norm/{handle.name}"] = _joint(own)
        metrics.update(method.learning_rates())
        self._timer.start()
        request = self._updates.make(step, [*losses, *norms.values()], metrics, request)
        self._timer.stop("optimizer")
        method.optimizers_zero_grad(step)
        return request

    def _log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """The last step's metrics; those that only earlier ones since the last log made are the mean over these."""
        means, self._unlogged = self._unlogged.result(), MetricMeans()
        metrics = {**means, **metrics, "skipped_steps": self._updates.take_skipped()}
        # A dataloader that goes on when a row cannot be read counts those it replaced since the last time.
        take_skipped_rows = getattr(self._dataloader, "take_skipped_rows", lambda: None)
        if (rows := take_skipped_rows()) is not None:  # over all processes: a tensor is logged as the mean over them
            metrics["skipped_rows"] = torch.tensor(float(rows * Mesh.current(self.training_args).data_size))
        steps = step - self._logged_step
        seconds = {f"seconds/{name}": value / steps for name, value in self._timer.take().items()}
        self._logged_step = step
        values = {**to_floats(metrics), **seconds, **self._progress.measure(step)}
        self.tracker.log(values, step)
        self._progress.show(step, values)

    def _save(self, step: int, request: int, *, is_last: bool) -> None:
        """Saves when it is due, asked for or the last chance; ends the run when it must not go on."""
        manager, failure, signal = self._manager, self._updates.failure, STOPPED_BY.get(request)
        if manager is not None and (request or failure or is_last or manager.is_due(step)):
            self._checkpoint(manager, step, failure, waits=bool(signal or failure))
        if failure is not None:
            raise failure
        if signal is not None and not is_last:
            saved = f", and saved as checkpoint-{step:06d}; --resume latest goes on" if manager is not None else ""
            raise RunStopped(f"stopped by {signal.name} after step {step}{saved}", 128 + signal)

    def _checkpoint(self, manager: CheckpointManager, step: int, cause: FastVideoError | None, *, waits: bool) -> None:
        """Saves, and `waits` until it is written; the error tells too of the run's own failure, where that is the cause."""
        try:
            with self._progress.interruption("checkpoint"):
                manager.save(step)
                if waits:
                    manager.finish()
        except CheckpointWriteError as error:
            if cause is None:
                raise
            raise type(cause)([*cause.problems, *error.problems]) from error

    def _validate(self, validations: Validations, step: int, *, is_last: bool) -> None:
        """Whatever becomes of it, no step is lost."""
        manager = self._manager
        if manager is not None and validations.must_save_first:
            self._checkpoint(manager, step, None, waits=False)
        try:
            with self._progress.interruption("validation"):
                request = validations.run(step)
        except ValidationError as error:
            if manager is None:
                raise
            self._checkpoint(manager, step, error, waits=True)
            saved = f"the run ends for that; its state after step {step} is saved"
            where = str(checkpoint_path(manager.output_dir, step))
            raise ValidationError([*error.problems, Problem(saved, where, fix="--resume latest goes on")]) from error
        if request:
            self._save(step, request, is_last=is_last)


def _joint(norms: list[Tensor]) -> Tensor:
    """The norm of everything that each of `norms` is the norm of a part of."""
    return torch.stack(norms).square().sum().sqrt() if len(norms) > 1 else norms[0]


def endless(dataloader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a dataloader, again and again; ValueError when it gives none. Its first iterator is made at once."""
    return _start_over(dataloader, iter(dataloader))


def _start_over(dataloader: Iterable[Any], iterator: Iterator[Any]) -> Iterator[Any]:
    nothing = object()
    while (first := next(iterator, nothing)) is not nothing:
        yield first
        yield from iterator
        iterator = iter(dataloader)
    raise ValueError(f"{type(dataloader).__name__} gave no batch")
