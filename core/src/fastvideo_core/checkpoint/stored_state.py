"""Opens a checkpoint without reading its tensors, and says what of its state does not fit a run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.rank_state import with_rank_state
from fastvideo_core.checkpoint.tensors import StoredTensors
from fastvideo_core.checkpoint.tree import join
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, Problem, listed

OTHER_RUN = "resume with the run.yaml that lies in the checkpoint, or start a new run from its weights"


class StoredTensor(NamedTuple):
    """A tensor of a checkpoint that is not read yet."""

    key: str
    shape: torch.Size
    dtype: torch.dtype


class StoredState:
    """The state in a checkpoint's folder: `tree` is that of `RunState.collect`, with a StoredTensor for each tensor.

    `training` is that of the run that goes on from it, whose main process looks for all of them (collective); without, the state
    that differs from process to process is left out.
    Raises CheckpointError where it is not whole, damaged or of another format; see also `with_rank_state`.
    """

    def __init__(self, folder: Path, training: TrainingArgs | None = None) -> None:
        self.folder = folder
        looked = partial(storage.read_document, folder)
        self.document = looked() if training is None else context.told_by_main(looked)
        self.tensors = StoredTensors(folder / storage.TENSORS, together=training is not None)
        self._skeleton, self._of_rank = self.document.state, dict[str, Tensor]()
        if training is not None:
            self._skeleton, self._of_rank = with_rank_state(folder, self.document, training)
        of_all = self.tensors.index.items()
        self.by_key = {key: StoredTensor(key, one.size, one.properties.dtype) for key, one in of_all}
        self.by_key |= {key: StoredTensor(key, one.shape, one.dtype) for key, one in self._of_rank.items()}
        with self.understood():
            self.tree: dict[str, Any] = join(self._skeleton, self.by_key)

    def read_into(self, targets: Mapping[str, Tensor]) -> dict[str, Any]:
        """Reads all tensors into `targets`, by key; the tree with these in place. Collective."""
        self.tensors.read({key: target for key, target in targets.items() if key not in self._of_rank})
        for key, tensor in self._of_rank.items():
            targets[key].copy_(tensor)
        with self.understood():
            state: dict[str, Any] = join(self._skeleton, targets)
            return state

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Not `foreign_file`: memory may run out inside, which is no fault of the checkpoint."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            found = f"its content cannot be understood: {type(error).__name__}: {error}"
            raise CheckpointError(Problem(found, str(self.folder), fix=storage.DAMAGED)) from error


Outline: TypeAlias = dict[tuple[str, str], dict[str, str]]
"""By what stands there ("module") and where ("role 'student'"): the names, and of tensors dtype and shape."""


def outline_of(tree: Mapping[str, Any]) -> Outline:
    """What of a state tree must be the same in a checkpoint and in the run that goes on from it."""
    outline: Outline = {("saved role", ""): dict.fromkeys(tree["roles"], "")}
    for role, modules in tree["roles"].items():
        where = f"role '{role}'"
        outline["module", where] = dict.fromkeys(modules, "")
        for module, tensors in modules.items():
            outline["parameter", f"{where}, module '{module}'"] = {name: form_of(one) for name, one in tensors.items()}
        outline["optimizer", where] = dict.fromkeys(tree["optimizers"][role], "")
        outline["lr scheduler", where] = dict.fromkeys(tree["lr_schedulers"][role], "")
        for name, optimizer in tree["optimizers"][role].items():
            groups = {f"{optimizer_of(role, name)}, group {n}": one for n, one in enumerate(optimizer["param_groups"])}
            outline["parameter group", optimizer_of(role, name)] = {str(number): "" for number in range(len(groups))}
            outline |= {("parameter", group): dict.fromkeys(one["params"], "") for group, one in groups.items()}
    return outline


def misfits(stored: Outline, live: Outline) -> list[Problem]:
    """Names that only one of the two has, and tensors of another form, at every place that both have."""
    problems = []
    for (kind, where), now in live.items():
        kept = stored.get((kind, where))
        if kept is None:
            continue  # what it stands in is missing, and told
        missing, extra = [name for name in now if name not in kept], [name for name in kept if name not in now]
        differing = [
            f"'{name}' is {kept[name]} in the checkpoint and {form} in this run"
            for name, form in now.items()
            if kept.get(name, form) != form
        ]
        told = (
            (missing, f"it has no {kind} {listed(missing)}, which this run has", f"the checkpoint has: {listed(kept)}"),
            (extra, f"it has the {kind} {listed(extra)}, which this run has not", f"this run has: {listed(now)}"),
            (differing, listed(differing, "; "), ""),
        )
        problems += [Problem(found, where, allowed, OTHER_RUN) for names, found, allowed in told if names]
    return problems


def form_of(tensor: Tensor | StoredTensor) -> str:
    """Dtype and shape, as messages show them."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def optimizer_of(role: str, name: str) -> str:
    """How messages call an optimizer."""
    return f"optimizer '{name}' of role '{role}'"
