"""Writing beside the training: a thread, and a copy in host memory of what it writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def in_thread(work: Callable[[], None]) -> Future[None]:
    """Runs a function in a thread that ends with the process.

    Not an executor's (as DCP's async_save has), for which Python waits at exit: a process whose peers are gone must not
    hang on work that it shares with them.
    """
    future: Future[None] = Future()
    threading.Thread(target=_run, args=(work, future), name="fastvideo-checkpoint", daemon=True).start()
    return future


def here(work: Callable[[], None]) -> Future[None]:
    """Runs a function at once; what it raises is in the future, as `in_thread` has it."""
    future: Future[None] = Future()
    _run(work, future)
    return future


def _run(work: Callable[[], None], future: Future[None]) -> None:
    try:
        work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)


class HostCopies:
    """Host memory of a run's tensors, used again for every snapshot.

    From a GPU the memory is pinned and the copies are queued behind what the device is doing: the host does not wait for
    them, `wait` does. DCP's DefaultStager makes the training wait: for the device, or before its next optimizer step.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors' values of this moment, sharded as they are; valid until the next `take`."""
        copies = {key: self._copy(key, tensor) for key, tensor in tensors.items()}
        self._memory = {key: memory for key, memory in self._memory.items() if key in tensors}
        self._copied = None
        if torch.cuda.is_available():
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        return copies

    def wait(self) -> None:
        """Returns when the copies are complete; for any thread."""
        if self._copied is not None:
            self._copied.synchronize()

    def _copy(self, key: str, tensor: Tensor) -> Tensor:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        memory = self._memory.get(key)
        if memory is None or memory.shape != local.shape or memory.dtype != local.dtype:
            memory = torch.empty(local.shape, dtype=local.dtype, pin_memory=local.is_cuda)
            self._memory[key] = memory
        memory.copy_(local.detach(), non_blocking=local.is_cuda)
        if isinstance(tensor, DTensor):
            # not DTensor.from_local, which would move the copy to the mesh's device
            return DTensor(memory, tensor._spec, requires_grad=False)  # type: ignore[no-untyped-call]
        return memory
