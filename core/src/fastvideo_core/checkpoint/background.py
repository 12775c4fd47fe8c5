"""Writing beside the training: a thread, and a copy in host memory of what it writes."""

import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class Writing(threading.Thread):
    """The writing of the checkpoint of `step`: begins at once, in a thread when `threaded`; an error is kept for `wait`.

    The thread ends with the process, unlike an executor's (as DCP's async_save has): a process whose peers are gone must not
    hang on work that it shares with them. `wait` returns when the thread has ended, unlike a future's: a process that exits while
    a thread lets go of tensors is aborted.
    """

    def __init__(self, step: int, work: Callable[[], None], *, threaded: bool) -> None:
        super().__init__(name="fastvideo-checkpoint", daemon=True)
        self.step, self._work = step, work
        self.error: BaseException | None = None
        begin = self.start if threaded else self.run
        begin()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def wait(self) -> None:
        """Waits for the end; raises what the work raised."""
        if self.is_alive():
            self.join()
        if self.error is not None:
            raise self.error


class HostCopies:
    """Host memory of a run's tensors, used again for every checkpoint.

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
            memory = self._memory[key] = torch.empty(local.shape, dtype=local.dtype, pin_memory=local.is_cuda)
        memory.copy_(local.detach(), non_blocking=local.is_cuda)
        if isinstance(tensor, DTensor):
            # not DTensor.from_local, which would move the copy to the mesh's device
            return DTensor(memory, tensor._spec, requires_grad=False)  # type: ignore[no-untyped-call]
        return memory
