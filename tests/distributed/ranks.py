"""Every rank is a process of its own, and none outlives the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


class RankError(AssertionError):
    """A rank ended with an error, or not in time; the message holds its output."""


def run_ranks(script: Path, world_size: int, *arguments: str | Path, timeout: float = 300) -> None:
    """Runs `python SCRIPT ARGUMENTS` as `world_size` ranks on the CPU, as torchrun would, and waits for them.

    The first failure ends the other ranks at once; at the end no process is left, whatever happened.

    Args:
        timeout: seconds for all of them together.

    Raises:
        RankError: with the output of the rank that failed first, or of all that were not done in time.
    """
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"rank-{rank}.txt" for rank in range(world_size)]
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank, path in enumerate(outputs):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world_size)}
                with path.open("wb") as output:
                    processes.append(
                        subprocess.Popen(
                            command,
                            env={**common, **place},
                            stdout=output,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
            _wait(processes, outputs, timeout)
        finally:
            for process in processes:
                _end(process)


def _wait(processes: Sequence[subprocess.Popen[bytes]], outputs: Sequence[Path], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        states = [process.poll() for process in processes]
        for rank, state in enumerate(states):
            if state:
                raise RankError(f"rank {rank} exited with {state}:\n{_tail(outputs[rank])}")
        if all(state == 0 for state in states):
            return
        if time.monotonic() > deadline:
            late = [rank for rank, state in enumerate(states) if state is None]
            said = "\n".join(f"--- rank {rank}:\n{_tail(outputs[rank])}" for rank in late)
            raise RankError(f"not done after {timeout:.0f} seconds:\n{said}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(path: Path, characters: int = 6000) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-characters:]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
