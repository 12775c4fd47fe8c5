"""The run's processes: started here through torch's own launcher, or joined when another launcher started them."""

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fastvideo_core.distributed import context
from fastvideo_core.errors import Problem
from fastvideo_core.launch import launcher
from fastvideo_core.launch.peers import leave_peers, watch_peers
from fastvideo_core.launch.signals import ENDED_AT_ONCE, STOPPED_BY, handling
from fastvideo_core.launch.stdio import complain

_AGENT_PATIENCE = 25.0  # seconds: less than torch's launcher waits before it kills who does not end with the first one
_Request = tuple[signal.Signals, float]  # what asked for an end, and when it came, in seconds since the epoch


def start_processes(count: int, arguments: Sequence[str]) -> int:
    """Runs `python -m fastvideo_core ARGUMENTS` in `count` processes of this machine and waits for them.

    SIGTERM, SIGHUP, SIGINT and SIGUSR1 are handed on to all of them. When one fails the others are ended, and the first error is
    shown, once. The exit status is 0, that of the process that failed first, or 128 + the signal that ended the run.
    """
    for name in ("", ".agent.server.api"):  # what torch says of every process that ends is said here once, in words
        logging.getLogger(f"torch.distributed.elastic{name}").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="fastvideo-") as name:
        folder = Path(name)
        os.environ[launcher.LAUNCHER] = str(os.getpid())
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            logs_specs=DefaultLogsSpecs(log_dir=name),
            run_id="fastvideo",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            signals_to_handle="SIGQUIT",  # the others are handed on
        )
        received: list[_Request] = []

        def hand_on(number: int, frame: FrameType | None) -> None:
            kind = signal.Signals(number)
            processes = launcher.ready_processes(folder)
            if kind is not signal.SIGUSR1:
                received.append((kind, time.time()))
                if len(processes) < count:  # not all are training yet: there is nothing to finish
                    raise SignalException(f"received {kind.name}", kind)
            for process in processes:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(process, kind)

        with handling(hand_on):
            try:
                elastic_launch(config, sys.executable)("-m", "fastvideo_core", *arguments)
            except ChildFailedError as failed:
                return _status(failed.failures, launcher.reported_error(folder), count, received)
            except SignalException as stopped:
                return 128 + int(stopped.sigval)
        return 0


def _status(
    failures: Mapping[int, ProcessFailure], error: launcher.RunError | None, count: int, received: Sequence[_Request]
) -> int:
    """The status of a run whose processes failed; says why, once, unless it was asked to end."""
    interrupts = [came for kind, came in received if kind is signal.SIGINT]
    if len(interrupts) > 1 and not (error and error.time < interrupts[1]):
        # The processes end when it reaches them, one before the other: what the later ones meet is its work.
        complain(ENDED_AT_ONCE)
        return 128 + signal.SIGINT
    ended = -signal.SIGTERM  # by torch's launcher, after another one
    killed = [(rank, one) for rank, one in failures.items() if one.exitcode < 0 and one.exitcode != ended]
    # Who lost a peer to the system says so shortly after; who hung until torch's launcher killed it came last.
    if killed and not (error and time.time() - error.time > _AGENT_PATIENCE):
        if received:
            return 128 + received[-1][0]
        rank, failure = killed[0]
        complain(f"error: {_killed(rank, count, failure)}")
        return 128 - failure.exitcode
    if error:
        complain(error.text)
        return error.status  # not the process's own: torch may have ended it while it was going
    if received:
        return 128 + received[0][0]
    status: int = next((one.exitcode for one in failures.values() if one.exitcode > 0), 128 + signal.SIGTERM)
    if status not in [128 + number for number in STOPPED_BY.values()]:
        complain(f"error: a process of the run ended with status {status} and said nothing")
    return status


def _killed(rank: int, count: int, failure: ProcessFailure) -> Problem:
    name = failure.signal_name()
    found = f"process {rank} of {count} (pid {failure.pid}) was killed by the system with {name}; the others were ended"
    fix = "a crash in compiled code; go on with --resume latest, and report it if it comes again"
    if name == "SIGKILL":
        fix = "memory ran out, mostly (see `dmesg`): take fewer dataloader_num_workers, or a machine with more; --resume latest"
    return Problem(found, fix=fix)


def join_process_group() -> bool:
    """Makes this process one of the run's, if a launcher started it; whether it was none before.

    Raises ConfigError where the launcher did not say enough.
    """
    if launcher.launched_processes() is None:
        return not dist.is_initialized()  # offloading makes one of this process alone
    if dist.is_initialized():
        watch_peers()
        return False
    launcher.complete_environment()
    launcher.end_with_launcher()
    if torch.cuda.is_available():
        torch.cuda.set_device(context.device())
        dist.init_process_group("nccl", device_id=context.device())
    else:
        dist.init_process_group("gloo")
    watch_peers()
    return True


def leave_process_group() -> None:
    """Undoes `join_process_group`."""
    leave_peers()
    if dist.is_initialized():
        dist.destroy_process_group()
