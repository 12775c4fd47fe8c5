"""A run of any number of processes in this one: real configuration, networks, sharding and method, on tensors without values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.family import ModelComponents, ModelFamily
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleManager
from fastvideo_core.dispatch.examine import Run
from fastvideo_core.dispatch.runtime import build_components, build_method
from fastvideo_core.errors import ContractError, FastVideoError, Problem
from fastvideo_data.captions import standing_in


@contextmanager
def fake_ranks(count: int) -> Iterator[None]:
    """Inside, this process is rank 0 of so many that do not exist: what is sent to them goes nowhere.

    Raises:
        FastVideoError: the process is one of a group already.
    """
    if dist.is_initialized():
        found = "this process is one of a group, and fake ranks need one of their own"
        raise FastVideoError(Problem(found, fix="simulate outside of a run, in a process that nothing started"))
    if count > 1:
        dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        yield
    finally:
        if dist.is_initialized():  # of one process, too, where something is offloaded
            dist.destroy_process_group()


@dataclass(frozen=True)
class Rehearsal:
    """A run that is built without weights: its method, one raw batch, and the mode in which its tensors are made."""

    method: DistillMethod
    batch: Any
    fake: FakeTensorMode


class _Unread:
    """A family whose networks are on meta whatever the run's size, and that builds nothing to sample with."""

    def __init__(self, family: ModelFamily) -> None:
        self._family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def build(self, cfg: RunConfig) -> ModelComponents:
        unread = {"frozen_cpu_offload": True, "log_validation": False, "dataloader_num_workers": 0}
        return self._family.build(replace(cfg, training=cfg.training.model_copy(update=unread)))


def rehearse(run: Run, place: Callable[[RoleManager], None] = lambda bundle: None) -> Rehearsal:
    """Builds a run among `fake_ranks`, of as many as it asks for; `place` sees its roles once they are sharded.

    Raises:
        UserError: as when the run is built for training.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def load(bundle: RoleManager, _: Run) -> None:
        for handle in bundle:
            handle.weights = None
            for module in () if handle.borrows else handle.modules.values():
                with fake:
                    move: Any = module._apply  # untyped
                    move(_without_values)
        place(bundle)

    unread: Any = {name: _Unread(family) for name, family in run.families.items()}
    components = build_components(replace(run, families=unread))
    if components.dataloader is None:
        silent = f"the family '{run.cfg.recipe.family}' gives no data loader, whose batches tell the sizes"
        raise ContractError(Problem(silent, where="recipe.family"))
    batch = next(iter(components.dataloader))
    method = build_method(run, components, load)
    text = batch.get("text_embedding") if isinstance(batch, dict) else None
    with standing_in(torch.zeros(1, 1) if text is None else torch.zeros(text.shape[1:])):
        method.on_train_start()
    return Rehearsal(method, batch, fake)


def _without_values(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu")
