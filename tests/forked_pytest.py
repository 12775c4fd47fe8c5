"""Runs of pytest in forked processes of their own: what `tests/mutations` and `tests/kit_faults` have in common.

Libraries that the parent has imported are there at once; what it has not is imported afresh by each process.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TypeVar

import pytest

Job = TypeVar("Job")
PROCESSES = 2


@dataclass
class Outcome:
    """What became of one run of pytest.

    Args:
        failed: the report of each test whose body failed, by node id without parameters.
        passed: node ids, without parameters, of the tests whose body passed.
        problem: why the run says nothing about the tests; empty when it does.
        stale: whether that is because the text to be changed is not there.
        output: what pytest printed.
    """

    failed: dict[str, str] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    problem: str = ""
    stale: bool = False
    output: str = ""
    libraries: tuple[str, ...] = ()  # of a run that only imports: the modules of installed libraries, in their order


def import_libraries_of(*modules: str) -> None:
    """Imports what these modules of ours import of installed libraries, and not them: runs that test copies of them find it.

    Not torch's parts, some of which start processes when they are imported.
    """
    [seen] = outcomes(_libraries_of, [modules])
    for name in seen.libraries:
        if not name.startswith("torch."):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _libraries_of(modules: Sequence[str]) -> Outcome:
    for module in modules:
        importlib.import_module(module)
    files = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    return Outcome(libraries=tuple(name for name, file in files.items() if "site-packages" in file))


def outcomes(run: Callable[[Job], Outcome], jobs: Sequence[Job]) -> Iterator[Outcome]:
    """`run(job)` of each job, in order; each in a process of its own, two at a time."""
    context = multiprocessing.get_context("fork")
    waiting, running, done = deque(enumerate(jobs)), {}, {}
    for number in range(len(jobs)):
        while number not in done:
            while waiting and len(running) < PROCESSES:
                index, job = waiting.popleft()
                receiving, sending = context.Pipe(duplex=False)
                process = context.Process(target=_send, args=(run, job, sending))
                process.start()
                sending.close()
                running[receiving] = index, process
            for receiving in wait(list(running)):
                index, process = running.pop(receiving)
                try:
                    done[index] = receiving.recv()
                except EOFError:
                    process.join()
                    done[index] = Outcome(problem=f"its process ended with {process.exitcode}")
                process.join()
        yield done.pop(number)


def _send(run: Callable[[Job], Outcome], job: Job, sending: Connection) -> None:
    sending.send(run(job))


def replace_once(file: Path, old: str, new: str) -> Outcome | None:
    """Replaces what stands in the file exactly once; else the outcome that says so."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if text.count(old) != 1:
        return Outcome(problem=f"the text {old!r} stands {text.count(old)} times in {file.name}, not once", stale=True)
    file.write_text(text.replace(old, new), encoding="utf-8")
    return None


def run_pytest(
    tests: Sequence[str], folder: Path, sources: Sequence[Path], packages: Collection[str], *options: str
) -> Outcome:
    """Runs tests in `folder`, with `sources` before all other folders that modules are imported from.

    Args:
        packages: beginnings of the names of modules that must come from inside `folder`.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, sources))
    sys.path[:0] = map(str, sources)
    os.chdir(folder)
    seen, output = _Reports(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        arguments = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}"]
        status = pytest.main([*arguments, *options, *tests], plugins=[seen])
    outcome = Outcome(seen.failed, seen.passed - set(seen.failed), seen.problem, output=output.getvalue())
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        outcome.problem = outcome.problem or f"pytest ended with {status!r}"
    foreign = [
        module.__file__
        for name, module in sys.modules.items()
        if name.startswith(tuple(packages)) and module.__file__ and not module.__file__.startswith(str(folder))
    ]
    if foreign:
        outcome.problem = f"the tests imported {foreign[0]}, which is not the copy"
    return outcome


class _Reports:
    """A plug-in of pytest that keeps how tests ended."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}
        self.passed: set[str] = set()
        self.problem = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0]
        if report.failed and report.when == "call":
            self.failed[name] = report.longreprtext
        elif report.failed:
            self.problem = f"{report.nodeid} failed in its {report.when}"
        elif report.passed and report.when == "call":
            self.passed.add(name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problem = f"{report.nodeid} could not be imported"
