"""When a run saves, where, and how it goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fastvideo_core import __version__
from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.rng_state import collect_rng, restore_rng
from fastvideo_core.checkpoint.storage import CheckpointDocument
from fastvideo_core.checkpoint.tensors import write_tensors
from fastvideo_core.checkpoint.training_state import RunCallbacks, RunState, damaged
from fastvideo_core.checkpoint.tree import Json, split
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, Problem
from fastvideo_core.method import DistillMethod

logger = logging.getLogger(__name__)


class CheckpointManager:
    """Saves a run's state every so many steps, and restores it.

    Args:
        output_dir: the run's folder.
        every: steps between checkpoints for `maybe_save`; 0 never saves there.
        keep: how many of the newest stay; 0 keeps all.
        config_yaml: the resolved run.yaml, stored beside the state.
        versions: of the plug-ins by distribution; those of fastvideo-core and torch are added.
    """

    def __init__(
        self, output_dir: str | Path, *, every: int, keep: int, config_yaml: str, versions: Mapping[str, str]
    ) -> None:
        self.output_dir = Path(output_dir)
        self.every = every
        self.keep = keep
        self._config_yaml = config_yaml
        self._versions = {"fastvideo-core": __version__, "torch": str(torch.__version__), **versions}
        self._run: RunState | None = None
        self._saved_step: int | None = None
        self._resume_path: Path | None = None
        self._rng: dict[str, Tensor] | None = None
        self._rng_source = ""

    def attach(self, method: DistillMethod, callbacks: RunCallbacks, dataloader: Iterable[Any]) -> None:
        """The live objects that `save` reads and `load` writes; also clears away what a killed save left."""
        self._run = RunState(method, callbacks, dataloader)
        if context.is_main_process():
            storage.clean_leftovers(self.output_dir)
        context.barrier()

    # --- saving -------------------------------------------------------------------------------------------------------

    def is_due(self, step: int) -> bool:
        """Whether `step` (steps done so far) is a multiple of `every`."""
        return self.every > 0 and step % self.every == 0

    def maybe_save(self, step: int) -> Path | None:
        """Saves when `step` is due; the new checkpoint's folder, or None."""
        return self.save(step) if self.is_due(step) else None

    def save(self, step: int) -> Path:
        """Saves the state after `step` steps; once saved, a step is not saved again. Collective.

        Raises:
            CheckpointWriteError: the disk is full or read-only; earlier checkpoints are intact.
        """
        target = storage.checkpoint_path(self.output_dir, step)
        if step == self._saved_step:
            return target
        run = self._attached()
        tensors, skeleton = split(run.collect())
        rng = collect_rng(run.method)
        with storage.written_aside(target) as folder:
            write_tensors(folder / storage.TENSORS, tensors)
            storage.write_file(storage.rng_path(folder, context.rank()), safetensors.torch.save(rng))
            context.barrier()
            if context.is_main_process():
                self._write_document(folder, step, skeleton)
        self._saved_step = step
        if context.is_main_process():
            storage.remove_oldest(self.output_dir, self.keep, target)
            run.callbacks.hook.checkpoint_saved(path=target, step=step)
        return target

    def _write_document(self, folder: Path, step: int, skeleton: Json) -> None:
        storage.write_file(folder / storage.RUN_CONFIG, self._config_yaml.encode())
        document = CheckpointDocument(
            format=storage.FORMAT,
            step=step,
            world_size=context.world_size(),
            versions=self._versions,
            files=storage.file_sizes(folder),
            state=skeleton,
        )
        storage.write_document(folder, document)

    # --- loading ------------------------------------------------------------------------------------------------------

    def resolve(self, which: str | Path) -> Path:
        """The complete checkpoint meant by `latest` (the newest of this run's folder) or by a path.

        Raises:
            CheckpointError: there is none.
        """
        if str(which) == "latest":
            if context.is_main_process():
                storage.put_back_replaced(self.output_dir)
            context.barrier()
            return storage.latest_checkpoint(self.output_dir)
        return storage.resolve_checkpoint(which)

    def prepare_resume(self, which: str | Path | None) -> int:
        """Chooses the checkpoint that `resume` will load and returns its step; None chooses none: step 0.

        Raises:
            CheckpointError: there is no such checkpoint.
        """
        self._resume_path = None if which is None else self.resolve(which)
        return 0 if self._resume_path is None else storage.read_document(self._resume_path).step

    def resume(self) -> None:
        """Loads what `prepare_resume` chose, if anything."""
        if self._resume_path is not None:
            self.load(self._resume_path)

    def load(self, path: str | Path) -> int:
        """Restores everything from a checkpoint and returns the step after which it was saved.

        To be called after `train_start` of the callbacks. Whatever draws random numbers between this and the first
        step (the start of a dataloader's iterator, say) is undone by `restore_rng`.

        Raises:
            CheckpointError: it is incomplete, damaged, of another format, of another run or of another world size.
        """
        run, folder = self._attached(), Path(path)
        document = storage.read_document(folder)
        if document.world_size != context.world_size():
            raise CheckpointError(
                Problem(
                    found=f"it was saved by {document.world_size} processes, and this run has {context.world_size()}",
                    where=str(folder),
                    fix=f"resume with training.num_gpus: {document.world_size}",
                )
            )
        rng = _read_rng(storage.rng_path(folder, context.rank()))
        run.restore(document.state, folder / storage.TENSORS)
        self._rng, self._rng_source = rng, str(folder)
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


def _read_rng(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise damaged(str(path), error.strerror or str(error)) from error
    except safetensors.SafetensorError as error:
        raise damaged(str(path), str(error)) from error
