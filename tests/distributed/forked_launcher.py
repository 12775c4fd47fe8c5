"""Launchers (ours, torchrun) forked from a server, and their processes forked from them: all find torch imported.

They do what started programs do, without the seconds that each would take to import it; test_faults.py and
test_launchers.py start some as programs too.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastvideo_testing import processes

processes.preload("fastvideo_core.launch.processes", "torch.distributed.run", "fastvideo_testing.toy")


class Program:
    """`python -m MODULE ARGUMENTS` in a forked process, with the part of Popen's interface that tests of launchers use."""

    def __init__(self, module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        name = f"{module}-{time.time_ns()}"
        self._output, self._error = folder / f"{name}.out", folder / f"{name}.err"
        self._process = processes.start(
            "tests.distributed.forked_launcher:run",
            {"module": module, "arguments": list(arguments)},
            environment=environment,
            output=self._output,
            error=self._error,
            folder=folder,
        )
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        assert self.poll() is not None, f"not done after {timeout} seconds:\n{self._error.read_text()}"
        return self._output.read_text(), self._error.read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(module: str, arguments: Sequence[str]) -> Any:
    """Runs `main()` of a module; the processes that torch's launcher starts there are forked."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import SubprocessHandler

    def fork(self: SubprocessHandler, command: Sequence[str], environment: Mapping[str, str]) -> _Forked:
        return _Forked(command[1:], environment, self._stdout, self._stderr)

    SubprocessHandler._popen = fork  # type: ignore[assignment,method-assign]
    sys.argv = [module, *arguments]
    return importlib.import_module(module).main()


class _Forked:
    """A process of a launcher, with the part of Popen's interface that torch's launcher uses."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *streams: Any) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, signal.valid_signals()
        )  # the launcher's handlers are not its own
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                _be_as_started(environment, streams)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                _run_python(command)
                status = 0
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(status)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _be_as_started(environment: Mapping[str, str], streams: Sequence[Any]) -> None:
    """What a program that Popen starts in a session of its own has of its parent."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) and signal.getsignal(number) is not signal.default_int_handler:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for descriptor, stream in enumerate(streams, start=1):
        if stream is not None:
            os.dup2(stream.fileno(), descriptor)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    assert threading.current_thread() is threading.main_thread()  # Python takes signals there


def _run_python(command: Sequence[str]) -> None:
    """`python COMMAND`, of `-u`, and `-m MODULE` or a file, and its arguments."""
    parts = [part for part in command if part != "-u"]
    if parts[0] == "-m":
        sys.argv = parts[1:]
        runpy.run_module(parts[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = parts
        runpy.run_path(parts[0], run_name="__main__")
