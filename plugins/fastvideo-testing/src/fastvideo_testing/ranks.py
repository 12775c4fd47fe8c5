"""Several processes in a test: real ones with gloo, or the appearance of them."""

from __future__ import annotations

import importlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fastvideo_testing import processes as forked

_TIMEOUT = 300


@contextmanager
def fake_process_group(rank: int = 0, world_size: int = 2) -> Iterator[None]:
    """Inside, this process is one of several that do not exist: collectives return at once and change nothing.

    For code that only asks who it is (random streams, data sharding, who writes files). What several processes compute
    together needs real ones: `run_ranks`.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend "fake"

    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def run_ranks(target: str, arguments: Mapping[str, Any], *, world_size: int = 2) -> None:
    """Runs `module:function(**arguments)` in new processes joined by gloo, and waits for them.

    Args:
        target: importable in a fresh interpreter.
        arguments: picklable; results go to files that they name.

    Raises:
        AssertionError: a process failed; holds the end of what it printed.
    """
    environment = {**os.environ, "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    environment |= {"MASTER_PORT": str(_free_port()), "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"rank-{rank}.txt" for rank in range(world_size)]
        processes = [
            forked.start(
                f"{__name__}:_rank",
                {"target": target, "arguments": dict(arguments)},
                environment={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                output=file,
            )
            for rank, file in enumerate(files)
        ]
        try:
            failed = _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.join()
        shown = "\n".join(f"--- process {rank} of {world_size}\n{_end(files[rank])}" for rank in failed)
    assert not failed, f"{target} failed or took more than {_TIMEOUT} s:\n{shown}"


def _wait(processes: Sequence[ForkServerProcess]) -> list[int]:
    """Ranks that failed first, or all that were still running at the end of the time; [] when all ended well."""
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        codes = [process.exitcode for process in processes]
        if failed := [rank for rank, code in enumerate(codes) if code]:
            return failed
        if all(code == 0 for code in codes):
            return []
        time.sleep(0.05)
    return [rank for rank, process in enumerate(processes) if process.exitcode is None]


def _end(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")[-3000:]


def _rank(target: str, arguments: Mapping[str, Any]) -> None:
    from fastvideo_core.launch import processes as launch

    module, _, name = target.partition(":")
    launch.join_process_group()
    try:
        getattr(importlib.import_module(module), name)(**arguments)
    finally:
        launch.leave_process_group()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def absolute(path: str | Path | None) -> str | None:
    """A path as another process can use it."""
    return None if path is None else str(Path(path).expanduser().resolve())
