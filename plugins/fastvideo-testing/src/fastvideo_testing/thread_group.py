"""Threads that stand for the processes of a group."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class ThreadGroup:
    """A process group of threads, and what of `torch.distributed` `fastvideo_diffusers.sequence_parallel` takes of it.

    For tests of a family's `split_tokens`: quick, and in one process. Random numbers are torch's global ones for all threads.
    """

    def __init__(self, size: int) -> None:
        self._size, self._own = size, threading.local()
        self._barrier, self._given = threading.Barrier(size, timeout=60), dict[int, Tensor]()

    def run(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` gives on each rank."""

        def of_rank(rank: int) -> Any:
            self._own.rank = rank
            try:
                return work()
            except BaseException:
                self._barrier.abort()
                raise

        with ThreadPoolExecutor(self._size) as pool:
            return list(pool.map(of_rank, range(self._size)))

    def size(self) -> int:
        """How many threads it has."""
        return self._size

    def rank(self) -> int:
        """Which of them this one is."""
        return int(self._own.rank)

    def _all(self, given: Tensor) -> list[Tensor]:
        self._barrier.wait()
        self._given[self._own.rank] = given
        self._barrier.wait()
        return [self._given[rank] for rank in range(self._size)]

    def all_gather_into_tensor(self, out: Tensor, given: Tensor, group: ThreadGroup) -> None:
        """As torch's."""
        out.copy_(torch.cat(self._all(given)))

    def all_to_all_single(self, out: Tensor, given: Tensor, group: ThreadGroup) -> None:
        """As torch's, of equal parts along dim 0."""
        out.copy_(torch.stack([one[self._own.rank] for one in self._all(given)]))


Results = tuple[Tensor, Mapping[str, Tensor]]
"""What a call gives, and by name the gradients of a loss of it."""


def assert_shares_are_the_whole(
    group: ThreadGroup, results: Callable[[ThreadGroup | None], Results], *, tolerance: float = 0.0
) -> None:
    """Every thread has the output of the whole call, and the mean of their gradients are its gradients.

    Args:
        results: of a network of its own at every call, whose tokens the group shares; the whole of them without one.
        tolerance: of the output; 0 is to the bit, which matrix products of few rows or columns may miss.

    Raises:
        AssertionError: it is not so.
    """
    (whole, gradients), shares = results(None), group.run(lambda: results(group))
    scale = max(gradient.norm() for gradient in gradients.values())
    for out, own in shares:
        torch.testing.assert_close(out, whole, rtol=0, atol=tolerance)
        assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        mean = torch.stack([own[name] for _, own in shares]).mean(0)
        far, allowed = (mean - gradient).norm(), 1e-5 * max(gradient.norm(), 1e-2 * scale)
        assert far <= allowed, f"the gradient of {name}, of norm {gradient.norm()}, differs by {far}"
