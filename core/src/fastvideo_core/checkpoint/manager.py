"""When a run saves, where, and how it goes on."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastvideo_core import __version__
from fastvideo_core.checkpoint import rank_state, storage
from fastvideo_core.checkpoint.background import HostCopies, Writing
from fastvideo_core.checkpoint.storage import CheckpointDocument, CheckpointWriteError, Choice
from fastvideo_core.checkpoint.stored_state import StoredState
from fastvideo_core.checkpoint.tensors import save_file, write_tensors
from fastvideo_core.checkpoint.training_state import RunState
from fastvideo_core.checkpoint.tree import split
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.distributed import context
from fastvideo_core.distributed.agreement import SharedWork, SharedWorkError
from fastvideo_core.errors import CheckpointError, Problem, foreign_file

if TYPE_CHECKING:
    from fastvideo_core.callbacks.manager import CallbackManager

logger = logging.getLogger(__name__)

_PATIENCE = 60.0  # seconds for which a failing process waits for a checkpoint that it writes together with others


@dataclass(eq=False)
class CheckpointManager:
    """Saves a run's state every so many steps, as its `training` section says, and restores it."""

    cfg: RunConfig
    versions: dict[str, str]  # of the plug-ins by distribution; those of fastvideo-core and torch are added
    resumed: Choice | None = None  # the checkpoint that the run goes on from

    def __post_init__(self) -> None:
        self._args, self.output_dir = self.cfg.training, Path(self.cfg.training.output_dir)
        self._skips_errors = self._args.on_checkpoint_error == "skip"
        self.versions = {"fastvideo-core": __version__, "torch": str(torch.__version__), **self.versions}
        self._run: RunState
        self._work: SharedWork
        self._copies = HostCopies()
        self._writing: Writing | None = None
        self._failure: CheckpointWriteError | None = None  # of the newest checkpoint
        self._failures = 0
        self._saved_step: int | None = None
        self._rng: dict[str, Tensor] | None = None  # of the checkpoint

    def attach(self, method: DistillMethod, callbacks: "CallbackManager", dataloader: Iterable[Any]) -> None:
        """Takes the live objects that are saved from now on, after `train_start` of the callbacks, and puts the state of the
        `resumed` checkpoint into them. Collective.

        Also clears away what a killed save left, and renames checkpoints that are not whole and were passed over. Whatever
        draws random numbers between this and the first step (the start of a dataloader's iterator, say) is undone by
        `restore_rng`. Raises CheckpointError where the checkpoint is damaged, or of another run.
        """
        self._run, self._work = RunState(method, callbacks, dataloader, self._args.resume_with_new_data), SharedWork()
        if context.is_main_process():
            storage.clean_leftovers(self.output_dir)
            for path, _ in self.resumed.passed_over if self.resumed is not None else ():
                if path.parent.resolve() == self.output_dir.resolve():
                    storage.set_aside(path)
        context.barrier()
        if self.resumed is not None:
            self._load(self.resumed.path)

    # --- saving -------------------------------------------------------------------------------------------------------

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is asked for after so many steps."""
        every = self._args.training_state_checkpointing_steps
        return every > 0 and step % every == 0

    def save(self, step: int) -> Path:
        """Saves the state after `step` steps; once saved, a step is not saved again. Collective.

        In the background the checkpoint is complete some time later: at the latest when the next one is saved or
        `finish` returns, which is also where its errors appear; the next one is written all the same. Raises
        CheckpointWriteError when the disk is full or read-only; earlier checkpoints are intact.
        """
        target = storage.checkpoint_path(self.output_dir, step)
        earlier = self._end_writing()
        if step == self._saved_step:
            return target
        tensors, skeleton, own = rank_state.separate(*split(self._run.collect()), self._work.group)
        if self._args.async_checkpointing:
            tensors = self._copies.take(tensors)
        rng = rank_state.collect_rng(self._run.method)
        document = CheckpointDocument(
            step=step,
            world_size=context.world_size(),
            sequence_parallel=self._args.sequence_parallel,
            versions=self.versions,
            files={},
            state=skeleton,
        )
        self._saved_step = step
        self._writing = Writing(
            step, lambda: self._write(document, tensors, rng, own), threaded=self._args.async_checkpointing
        )
        if self._args.async_checkpointing and (earlier is None or self._skips_errors):
            return target
        failure = self._end_writing()
        if failure is None and earlier is not None:
            stopped = Problem(f"the run ends for that; its state after step {step} is saved", str(target))
            failure = CheckpointWriteError([*earlier.problems, stopped])
        if failure is not None and not self._skips_errors:
            raise failure from earlier
        return target

    def poll(self) -> bool:
        """Tells callbacks and log of a checkpoint that has come to its end; whether the run must end with another one, as far as
        this process knows, as that one could not be written."""
        writing = self._writing
        if writing is None or writing.is_alive():
            return False
        if writing.error is not None and not self._skips_errors:
            return True
        self._end_writing()
        return False

    def finish(self) -> None:
        """Waits for the checkpoint that is being written; raises CheckpointWriteError where the last one could not be, whatever
        `on_checkpoint_error` says. Collective."""
        self._end_writing()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Lets the checkpoint that is being written be completed if that is possible, after an error elsewhere."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        writing.join(None if context.world_size() == 1 else _PATIENCE)
        if writing.is_alive():
            target = storage.checkpoint_path(self.output_dir, writing.step)
            logger.error("%s is not complete: other processes are gone", target)
        elif writing.error is not None:
            logger.error("%s", writing.error)

    def _end_writing(self) -> CheckpointWriteError | None:
        """Waits for what is being written; why it could not be, the same on all processes."""
        writing, self._writing = self._writing, None
        if writing is None:
            return None
        try:
            writing.wait()
        except CheckpointWriteError as error:
            self._saved_step, self._failure = None, error
            self._failures += 1
            if self._skips_errors and context.is_main_process():
                goes_on = "training goes on (training.on_checkpoint_error: skip); checkpoints that could not be written"
                logger.error("%s\n    %s: %d", error, goes_on, self._failures)
            return error
        self._failure = None
        if context.is_main_process():
            target = storage.checkpoint_path(self.output_dir, writing.step)
            self._run.callbacks.hook.checkpoint_saved(path=target, step=writing.step)
        return None

    def _write(
        self,
        document: CheckpointDocument,
        tensors: Mapping[str, Tensor],
        rng: dict[str, Tensor],
        own: rank_state.RankFile | None,
    ) -> None:
        """Writes a folder beside the checkpoint's place and puts it there when all processes have done their parts.

        When one fails, all raise CheckpointWriteError, and nothing of the attempt is left.
        """
        work = self._work
        target = storage.checkpoint_path(self.output_dir, document.step)
        unfinished = storage.unfinished(target)
        written = {}

        def write_part() -> None:
            self._copies.wait()
            files = write_tensors(unfinished / storage.TENSORS, tensors, work.group)
            files.append(save_file(rng, unfinished / rank_state.file_of("rng", context.rank())))
            if own is not None:
                files.append(save_file(own[0], unfinished / rank_state.file_of("own", context.rank()), own[1]))
            if context.is_main_process():
                files.append(unfinished / storage.RUN_CONFIG)
                files[-1].write_text(self.cfg.to_yaml())
            written.update({file.relative_to(unfinished).as_posix(): storage.synced(file) for file in files})

        def publish() -> None:
            storage.write_document(unfinished, document.model_copy(update={"files": all_files}))
            storage.publish(unfinished, target)

        try:
            work.run(lambda: storage.make_empty(unfinished), main_only=True)
            work.run(write_part)
            all_files = {name: file for one in work.gather(written) for name, file in one.items()}
            work.run(publish, main_only=True)
        except SharedWorkError as error:
            where = str(target) if context.world_size() == 1 else f"{target} (process {error.rank})"
            found = f"the checkpoint could not be written: {error.text}"
            advice = "free space or make the folder writable; " if error.by_system else ""
            problem = Problem(found, where, fix=f"{advice}earlier checkpoints are intact")
            raise CheckpointWriteError(problem) from (error.__cause__ or error)
        finally:
            if context.is_main_process():
                storage.remove(unfinished)
        if context.is_main_process():
            storage.remove_oldest(self.output_dir, self._args.checkpoints_total_limit, target)

    # --- loading ------------------------------------------------------------------------------------------------------

    def _load(self, folder: Path) -> None:
        stored = StoredState(folder, self._args)
        document = stored.document
        same = rank_state.same_rank(document, self._args)
        rng, _ = rank_state.read_file(folder, document, "rng", same or 0)
        if same is None:
            rng = rank_state.rng_of_other_world(self._run.method, rng, document.step)
            logger.warning(
                "the checkpoint was written by %d processes and this run has %d%s: weights, moments and data go on; noise is "
                "drawn anew, so that the run is not the same to the bit",
                document.world_size,
                context.world_size(),
                " (of which fewer or more share a sample)" if document.world_size == context.world_size() else "",
            )
        self._run.restore(stored)
        self._rng = rng
        with foreign_file(folder / "rng", "random state", CheckpointError, "use another checkpoint"):
            self.restore_rng()
        if later := storage.checkpoints(self.output_dir, after=document.step):
            logger.warning(
                "going on from step %d, but %s has later checkpoints (%s): `latest` means those until this run passes "
                "them; remove them if they are not needed",
                document.step,
                self.output_dir,
                ", ".join(one.name for one in later),
            )

    def restore_rng(self) -> None:
        """Sets all random generators once more as the loaded checkpoint has them; without one, nothing happens."""
        if self._rng is not None:
            rank_state.restore_rng(self._run.method, self._rng)
