"""When a run saves, where, and how it goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fastvideo_core import __version__
from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.background import Background, HostCopies
from fastvideo_core.checkpoint.choice import Choice, choose
from fastvideo_core.checkpoint.document import FORMAT, CheckpointDocument, StoredFile, read_checked, write_document
from fastvideo_core.checkpoint.rank_state import OwnState, separate, with_own_state
from fastvideo_core.checkpoint.rng_state import collect_rng, restore_rng, rng_of_other_world
from fastvideo_core.checkpoint.storage import CheckpointWriteError
from fastvideo_core.checkpoint.tensors import StoredTensors, save_file, write_tensors
from fastvideo_core.checkpoint.training_state import RunCallbacks, RunState
from fastvideo_core.checkpoint.tree import Json, split
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.distributed import context
from fastvideo_core.distributed.agreement import Crew
from fastvideo_core.errors import CheckpointError, Problem, foreign_file

logger = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds for which a failing process waits for a checkpoint that it writes together with others."""


@dataclass(frozen=True)
class _Snapshot:
    """What one checkpoint holds; `tensors` stay as they are until it is written."""

    step: int
    tensors: Mapping[str, Tensor]
    skeleton: Json
    rng: dict[str, Tensor]
    own: OwnState | None


@dataclass(frozen=True)
class _Writing:
    """A checkpoint on its way to the disk."""

    target: Path
    step: int
    work: Background


class CheckpointManager:
    """Saves a run's state every so many steps, and restores it.

    Args:
        output_dir: the run's folder.
        every: steps between checkpoints for `is_due`; with 0 none is.
        keep: how many of the newest stay; 0 keeps all.
        config_yaml: the resolved run.yaml, stored beside the state.
        versions: of the plug-ins by distribution; those of fastvideo-core and torch are added.
        background: write from a copy in host memory while training goes on; one checkpoint at a time.
        skip_errors: when a checkpoint cannot be written, log it and go on; only the run's last one must be there.
        new_data: a resumed run starts its data afresh.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        every: int,
        keep: int,
        config_yaml: str,
        versions: Mapping[str, str],
        background: bool = False,
        skip_errors: bool = False,
        new_data: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.every = every
        self.keep = keep
        self._config_yaml = config_yaml
        self.versions = {"fastvideo-core": __version__, "torch": str(torch.__version__), **versions}
        self._background = background
        self._skip_errors = skip_errors
        self._new_data = new_data
        self._run: RunState | None = None
        self._crew: Crew | None = None
        self._copies = HostCopies()
        self._writing: _Writing | None = None
        self._failures = 0
        self._failure: CheckpointWriteError | None = None  # of the newest checkpoint
        self._logged_failure: int | None = None  # its step
        self._saved_step: int | None = None
        self._choice: Choice | None = None
        self._rng: dict[str, Tensor] | None = None
        self._rng_source = ""

    def attach(self, method: DistillMethod, callbacks: RunCallbacks, dataloader: Iterable[Any]) -> None:
        """The live objects that `save` reads and `load` writes; also clears away what a killed save left, and puts aside
        checkpoints that are not whole and were passed over."""
        self._run = RunState(method, callbacks, dataloader, self._new_data)
        self._crew = self._crew or Crew()
        if context.is_main_process():
            storage.clean_leftovers(self.output_dir)
            for path, _ in self._choice.passed_over if self._choice is not None else ():
                if path.parent.resolve() == self.output_dir.resolve():
                    storage.set_aside(path)
        context.barrier()

    # --- saving -------------------------------------------------------------------------------------------------------

    def is_due(self, step: int) -> bool:
        """Whether `step` (steps done so far) is a multiple of `every`."""
        return self.every > 0 and step % self.every == 0

    def save(self, step: int) -> Path:
        """Saves the state after `step` steps; once saved, a step is not saved again. Collective.

        In the background the checkpoint is complete some time later: at the latest when the next one is saved or
        `finish` returns, which is also where its errors appear; the next one is written all the same.

        Raises:
            CheckpointWriteError: the disk is full or read-only; earlier checkpoints are intact.
        """
        target = storage.checkpoint_path(self.output_dir, step)
        if step == self._saved_step:
            return target
        earlier = self._end_writing()
        run, crew = self._attached(), self._crew
        assert crew is not None
        tensors, skeleton, own = separate(*split(run.collect()), crew.group)
        if self._background:
            tensors = self._copies.take(tensors)
        snapshot = _Snapshot(step, tensors, skeleton, collect_rng(run.method), own)
        self._saved_step = step
        work = Background(lambda: self._write(target, snapshot, crew), threaded=self._background)
        self._writing = _Writing(target, step, work)
        waits = not self._background or (earlier is not None and not self._skip_errors)
        failure = self._end_writing() if waits else None
        if self._skip_errors:
            return target
        if failure is not None:
            raise failure from earlier
        if earlier is not None:
            stopped = Problem(f"the run ends for that; its state after step {step} is saved", str(target))
            raise CheckpointWriteError([*earlier.problems, stopped]) from earlier
        return target

    def poll(self) -> None:
        """Tells the callbacks of a checkpoint that was completed meanwhile, and the log of one that could not be."""
        writing = self._writing
        if writing is None:
            return
        if writing.work.succeeded():
            self._end_writing()
        elif writing.work.failed() and self._skip_errors:
            self._log_failure(writing)

    def must_save(self) -> bool:
        """Whether this process knows that the run must end with a checkpoint, as the one before could not be written."""
        return self._writing is not None and self._writing.work.failed() and not self._skip_errors

    def finish(self) -> None:
        """Waits for the checkpoint that is being written. Collective.

        Raises:
            CheckpointWriteError: the last checkpoint could not be written, whatever `skip_errors` says.
        """
        self._end_writing()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Lets the checkpoint that is being written be completed if that is possible, after an error elsewhere."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            if not writing.work.wait(None if context.world_size() == 1 else _PATIENCE):
                logger.error("%s is not complete: other processes are gone", writing.target)
        except Exception as error:
            logger.error("%s", error)

    def _end_writing(self) -> CheckpointWriteError | None:
        """Waits for what is being written; why it could not be, the same on all processes."""
        writing, self._writing = self._writing, None
        if writing is None:
            return None
        try:
            writing.work.wait()
        except CheckpointWriteError as error:
            self._saved_step, self._failure = None, error
            if self._skip_errors:
                self._log_failure(writing)
            return error
        self._failure = None
        if context.is_main_process():
            self._attached().callbacks.hook.checkpoint_saved(path=writing.target, step=writing.step)
        return None

    def _log_failure(self, writing: _Writing) -> None:
        """Once for each checkpoint, by the main process."""
        if writing.step == self._logged_failure or not context.is_main_process():
            return
        self._logged_failure = writing.step
        self._failures += 1
        logger.error(
            "%s\n    training goes on (training.on_checkpoint_error: skip); checkpoints that could not be written: %d",
            writing.work.error,
            self._failures,
        )

    def _write(self, target: Path, snapshot: _Snapshot, crew: Crew) -> None:
        def write(folder: Path) -> list[Path]:
            self._copies.wait()
            files = write_tensors(folder / storage.TENSORS, snapshot.tensors, crew.group)
            files.append(folder / storage.rng_name(context.rank()))
            save_file(snapshot.rng, files[-1])
            if snapshot.own is not None:
                tensors, metadata = snapshot.own
                files.append(folder / storage.own_state_name(context.rank()))
                save_file(tensors, files[-1], metadata)
            if context.is_main_process():
                files.append(folder / storage.RUN_CONFIG)
                files[-1].write_text(self._config_yaml)
            return files

        def seal(folder: Path, files: dict[str, StoredFile]) -> None:
            document = CheckpointDocument(
                format=FORMAT,
                step=snapshot.step,
                world_size=context.world_size(),
                versions=dict(self.versions),
                files=files,
                state=snapshot.skeleton,
            )
            write_document(folder, document)

        storage.write_aside(target, crew, write, seal)
        if context.is_main_process():
            storage.remove_oldest(self.output_dir, self.keep, target)

    # --- loading ------------------------------------------------------------------------------------------------------

    def prepare_resume(self, choice: Choice | None) -> int:
        """Takes note of the checkpoint that `resume` will load and returns its step; None is none: step 0.

        Raises:
            CheckpointError: it is gone.
        """
        self._choice = choice
        return 0 if choice is None else storage.read_document(choice.path).step

    def resume(self) -> None:
        """Loads what `prepare_resume` chose, if anything."""
        if self._choice is not None:
            self.load(self._choice.path)

    def load(self, path: str | Path) -> int:
        """Restores everything from a checkpoint and returns the step after which it was saved.

        To be called after `train_start` of the callbacks. Whatever draws random numbers between this and the first
        step (the start of a dataloader's iterator, say) is undone by `restore_rng`.

        Raises:
            CheckpointError: it is incomplete, damaged, of another format or of another run.
        """
        run, folder = self._attached(), Path(path)
        if self._choice is None or self._choice.path != folder:
            choose(folder, self.output_dir)  # whose files nobody has looked at
        document = storage.read_document(folder)
        skeleton, own = with_own_state(folder, document, new_data=self._new_data)
        if document.world_size == context.world_size():
            rng = _read_rng(folder, document, context.rank())
        else:
            rng = rng_of_other_world(run.method, _read_rng(folder, document, 0), document.step)
            logger.warning(
                "the checkpoint was written by %d processes and this run has %d: weights, moments and data go on; noise is "
                "drawn anew, so that the run is not the same to the bit",
                document.world_size,
                context.world_size(),
            )
        run.restore(skeleton, StoredTensors(folder / storage.TENSORS), own)
        self._rng, self._rng_source = rng, str(folder)
        with foreign_file(folder / "rng", "random state", CheckpointError, "use another checkpoint"):
            self.restore_rng()
        if folder.resolve().parent == self.output_dir.resolve():
            self._saved_step = document.step
        if later := storage.later_checkpoints(self.output_dir, document.step):
            logger.warning(
                "going on from step %d, but %s has later checkpoints (%s): `latest` means those until this run passes "
                "them; remove them if they are not needed",
                document.step,
                self.output_dir,
                ", ".join(one.name for one in later),
            )
        return document.step

    def restore_rng(self) -> None:
        """Sets all random generators once more as the loaded checkpoint has them; without one, nothing happens."""
        if self._rng is not None:
            restore_rng(self._attached().method, self._rng, self._rng_source)

    def _attached(self) -> RunState:
        if self._run is None:
            raise RuntimeError("attach(method, callbacks, dataloader) comes before saving and loading")
        return self._run


def _read_rng(folder: Path, document: CheckpointDocument, rank: int) -> dict[str, Tensor]:
    name = storage.rng_name(rank)
    content = read_checked(folder, name, document)
    with foreign_file(folder / name, "random state", CheckpointError, "use another checkpoint; this one is damaged"):
        return safetensors.torch.load(content)
