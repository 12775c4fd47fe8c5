"""Work that all processes do together: when it fails on one, all know it, and none waits for another."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from fastvideo_core.distributed import context

_T = TypeVar("_T")


class SharedWorkError(Exception):
    """Why process `rank`, the first that failed, could not do its share; `by_system`: the system refused (disk full, ...)."""

    def __init__(self, rank: int, text: str, by_system: bool) -> None:
        super().__init__(rank, text, by_system)  # so that it can be pickled
        self.rank, self.text, self.by_system = rank, text, by_system


class SharedWork:
    """Runs work on all processes; an error on one is raised on all. Making one, and each of its calls, is collective.

    The group is gloo's and its own, so that a background thread may use it beside the training.
    """

    def __init__(self) -> None:
        self.group: dist.ProcessGroup | None = dist.new_group(backend="gloo") if context.world_size() > 1 else None

    def run(self, work: Callable[[], None], *, main_only: bool = False) -> None:
        """Every process (or only the main one) does `work`, and all wait until it is done; raises SharedWorkError on all."""
        failure, cause = None, None
        if not main_only or context.is_main_process():
            try:
                work()
            except Exception as error:
                refused = error.strerror if isinstance(error, OSError) else None
                text = refused or f"{type(error).__name__}: {error}"
                failure, cause = SharedWorkError(context.rank(), text, bool(refused)), error
        found = next(filter(None, self.gather(failure)), None)
        if found is not None:
            raise found from cause

    def gather(self, value: _T) -> list[_T]:
        """What every process gives, by rank; it must be picklable."""
        return context.gathered(value, self.group)

    def tell(self, number: int, patience: float | None = None) -> list[int]:
        """As `gather`, for a whole number, and cheaper.

        With `patience` it waits so many seconds, and raises TimeoutError when they are over, or the others gone.
        """
        if self.group is None:
            return [number]
        told = [torch.zeros(1, dtype=torch.int64) for _ in range(context.world_size())]
        work = dist.all_gather(told, torch.tensor([number]), group=self.group, async_op=True)
        assert work is not None
        try:
            work.wait(*([] if patience is None else [timedelta(seconds=patience)]))
        except RuntimeError as error:
            if patience is None:
                raise
            raise TimeoutError(str(error)) from error
        return [int(one) for one in told]
