"""Commands of this program that run beside each other: worker processes, each of which imports the libraries once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from fastvideo_core.errors import FastVideoError
from fastvideo_core.launch.stdio import say


@dataclass(frozen=True)
class Job:
    """One command.

    Args:
        name: of the job, and of its log file.
        arguments: what is typed behind the program's name.
        after: jobs that must be done before.
    """

    name: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = ()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class DemoError(FastVideoError):
    """A command of the demo failed."""

    title = "the demo failed"


def run_jobs(jobs: Sequence[Job], logs: Path, *, processes: int) -> dict[str, float]:
    """Runs the jobs in their order, up to `processes` at a time.

    Args:
        logs: folder for what each one prints, as NAME.log.
        processes: each has an equal share of the processor's cores.

    Returns:
        The seconds of each job by its name.

    Raises:
        DemoError: a job failed; the others are ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    threads = max(1, cores() // processes)
    workers = [_Worker(threads) for _ in range(processes)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)
    waiting, running, seconds = list(jobs), set[Future[tuple[str, float]]](), dict[str, float]()
    try:
        with ThreadPoolExecutor(processes) as pool:
            while waiting or running:
                due = [job for job in waiting if set(job.after) <= seconds.keys()]
                for job in due[: processes - len(running)]:
                    waiting.remove(job)
                    running.add(pool.submit(_run_on, idle, job, logs / f"{job.name}.log"))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name, spent = future.result()
                    seconds[name] = spent
    except BaseException:
        for worker in workers:
            worker.kill()
        raise
    for worker in workers:
        worker.close()
    return seconds


def _run_on(idle: SimpleQueue[_Worker], job: Job, log: Path) -> tuple[str, float]:
    worker = idle.get()
    try:
        started = time.monotonic()
        status = worker.run(job.arguments, log)
        if status != 0:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
            raise DemoError(f"`fastvideo-distill {' '.join(job.arguments)}` ended with status {status}:\n{end}")
        spent = time.monotonic() - started
        say(f"  {job.name}: done in {spent:.0f} s", flush=True)
        return job.name, spent
    finally:
        idle.put(worker)


class _Worker:
    """A process that runs one command after the other."""

    def __init__(self, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastvideo_tools.demo.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )

    def run(self, arguments: Sequence[str], log: Path) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"arguments": list(arguments), "log": str(log)}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        return int(answer) if answer.strip() else self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
