"""Makes each known mistake in a copy of the sources, one at a time, and shows that its tests notice.

    python tests/mutations/run_mutations.py [WORDS ...]

With words, only mutations whose name contains one of them. Exit status 1 when a mutation survives, when the tests do not
pass without it, or when its text is not found any more (then bring this folder up to date). The working tree is only
read.

Every run of pytest is a forked process of its own: it imports the packages afresh from its copy, while torch and other
libraries, which take far longer, are imported once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from adversarial import ADVERSARIAL_TERM
from mathematics import MATHEMATICS
from mutation import Mutation
from routing import ROUTES
from updates import UPDATES_AND_LOOP

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", *(f"plugins/{folder.name}" for folder in sorted((ROOT / "plugins").iterdir()) if folder.is_dir()))
COPIED = (*(f"{package}/{part}" for package in PACKAGES for part in ("src", "tests")), "pytest.ini")
LIBRARIES = ("torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor")
LIBRARIES += ("av", "importlib_metadata", "pluggy", "pyarrow.parquet", "pydantic", "safetensors.torch", "yaml")
PROCESSES = 2
MUTATIONS = (*MATHEMATICS, *UPDATES_AND_LOOP, *ADVERSARIAL_TERM, *ROUTES)


@dataclass
class Outcome:
    """What became of one run of pytest.

    Args:
        failed: node ids, without parameters, of the tests whose body failed.
        problem: why the run says nothing about the tests; empty when it does.
        stale: whether that is because the text to be changed is not there.
        output: what pytest printed.
    """

    failed: set[str] = field(default_factory=set)
    problem: str = ""
    stale: bool = False
    output: str = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.when == "call":
            self.failed.add(report.nodeid.partition("[")[0])
        elif report.failed:
            self.problem = f"{report.nodeid} failed in its {report.when}"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problem = f"{report.nodeid} could not be imported"


def main(words: Sequence[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    if not chosen:
        print("no mutation has such a name")
        return 1
    start = time.monotonic()
    for library in LIBRARIES:
        importlib.import_module(library)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        [baseline] = verdicts_of([(None, tests, Path(folder) / "right")])
        if baseline.problem or baseline.failed:
            print(f"{baseline.output}\nthe tests do not pass as the sources are: {baseline.problem}")
            return 1
        jobs = [(m, m.tests, Path(folder) / str(number)) for number, m in enumerate(chosen)]
        verdicts = []
        for mutation, outcome in zip(chosen, verdicts_of(jobs), strict=True):
            verdicts.append(verdict(mutation, outcome))
            print(f"{verdicts[-1]:10}  {mutation.name:58}  {mutation.file}", flush=True)
            if verdicts[-1] != "caught":
                print(
                    "\n".join(f"    {line}" for line in (outcome.problem, *outcome.output.splitlines()[-15:]) if line)
                )
    caught = verdicts.count("caught")
    print(f"{caught} of {len(chosen)} mutations caught by {len(tests)} tests in {time.monotonic() - start:.0f} s")
    return 0 if caught == len(chosen) else 1


def verdict(mutation: Mutation, outcome: Outcome) -> str:
    """`caught`, or what is wrong: SURVIVED, STALE (its text is gone), UNCLEAR (the tests could not run)."""
    if outcome.problem:
        return "STALE" if outcome.stale else "UNCLEAR"
    return "caught" if set(mutation.tests) <= outcome.failed else "SURVIVED"


Job = tuple[Mutation | None, Sequence[str], Path]


def verdicts_of(jobs: Iterable[Job]) -> Iterator[Outcome]:
    """The outcome of each job, in order; each in a process of its own."""
    with multiprocessing.get_context("fork").Pool(PROCESSES, maxtasksperchild=1) as pool:
        yield from pool.imap(run_job, jobs)


def run_job(job: Job) -> Outcome:
    """Copies the sources, makes the mistake, runs the tests there."""
    mutation, tests, copy = job
    for part in COPIED:
        copy_part(part, copy)
    if mutation is not None:
        path = copy / mutation.file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.count(mutation.old) != 1:
            found = f"stands {text.count(mutation.old)} times in {mutation.file}, not once"
            return Outcome(problem=f"the text {mutation.old!r} {found}", stale=True)
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    outcome = run_tests(tests, copy)
    shutil.rmtree(copy)
    return outcome


def copy_part(part: str, copy: Path) -> None:
    source, target = ROOT / part, copy / part
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def run_tests(tests: Sequence[str], copy: Path) -> Outcome:
    sources = [str(copy / package / "src") for package in PACKAGES]
    os.environ["PYTHONPATH"] = os.pathsep.join(sources)
    sys.path[:0] = sources
    os.chdir(copy)
    outcome, output = Outcome(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        arguments = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", f"--basetemp={copy / 'tmp'}"]
        status = pytest.main([*arguments, *tests], plugins=[outcome])
    outcome.output = output.getvalue()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        outcome.problem = outcome.problem or f"pytest ended with {status!r}"
    foreign = [
        module.__file__
        for name, module in sys.modules.items()
        if name.startswith("fastvideo_") and module.__file__ and not module.__file__.startswith(str(copy))
    ]
    if foreign:
        outcome.problem = f"the tests imported {foreign[0]}, which is not the copy"
    return outcome


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    sys.exit(main(sys.argv[1:]))
