"""Plants each fault in a copy of a plug-in, one at a time, and shows that the conformance kit says what is wrong.

    python -m tests.kit_faults.run_kit_faults [WORDS ...]

With words, only faults whose name (such as methods/loss_weight_dropped) contains one of them. Exit status 1 when a fault is
not caught, when its checks do not pass without it, or when its text is not found any more; or when fewer than 95 % of all
are caught. The working tree is only read.

To add a fault, write a file methods/, families/, callbacks/ or registrations/WHAT_IS_WRONG.py:

    \"\"\"The loss has the wrong sign.\"\"\"

    from tests.kit_faults.fault import METHOD, Fault

    FAULT = Fault(
        METHOD,
        (("method.py", "(x0 - target)", "(x0 + target)"),),
        checks=("test_the_student_comes_nearer_to_the_data",),
        says="is a sign wrong in the loss",
    )

The base is a project that a scaffold writes (METHOD, FAMILY, CALLBACK), one of this repository (DMD2, MOCHI ...), or, for what
none of these has, a folder in bases/ with the same three parts: `src`, `pyproject.toml`, `tests/test_conformance.py`. It is
copied, changed, and put before all that is installed, entry points included; then the checks run there, each run of pytest
in a forked process (`tests/forked_pytest.py`). So a fault may stand in any file of the project, pyproject.toml too, and any test
of the base can be one of the checks. Checks should be few and quick: those that are meant to catch.

A fault that no check can catch has `escapes`, the reason, in place of `checks`; it counts as planted and not as caught.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.forked_pytest import Outcome, import_libraries_of, outcomes, replace_once, run_pytest
from tests.kit_faults.fault import Change, Fault

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("methods", "families", "callbacks", "registrations")
LIBRARIES = ("torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor")
LIBRARIES += ("pytest", "fastvideo_core.training.trainer", "fastvideo_data", "fastvideo_tools.commands.new_plugin")
LIBRARIES += tuple(f"fastvideo_testing.{name}" for name in ("methods", "callbacks"))
ENOUGH = 0.95
"""The share of all faults that must be caught."""


@dataclass(frozen=True)
class Planted:
    """A fault with its name, such as methods/loss_weight_dropped, and what is wrong, in a line."""

    name: str
    wrong: str
    fault: Fault


@dataclass(frozen=True)
class Job:
    """Checks to run in a copy of a base."""

    base: str
    changes: tuple[Change, ...]
    checks: tuple[str, ...]
    copy: Path


def main(words: Sequence[str]) -> int:
    chosen = [planted for planted in all_faults() if not words or any(word in planted.name for word in words)]
    if not chosen:
        print("no fault has such a name")
        return 1
    start = time.monotonic()
    for library in LIBRARIES:
        importlib.import_module(library)
    import_libraries_of("fastvideo_wan.family", "fastvideo_ltx.family", "transformers.models.umt5.modeling_umt5")
    tried = [planted for planted in chosen if not planted.fault.escapes]
    with tempfile.TemporaryDirectory(prefix="kit-faults-") as folder:
        right = list(baselines(tried, Path(folder)))
        unsound = False
        for job, outcome in zip(right, outcomes(run_job, right), strict=True):
            missing = set(job.checks) - {name.rpartition("::")[2] for name in outcome.passed}
            if outcome.problem or missing:
                print(f"{outcome.output}\n{job.base} without a fault does not pass {', '.join(sorted(missing))}:")
                print(f"{outcome.problem} {job.changes}", flush=True)
                unsound = True
        if unsound:
            return 1
        jobs = [
            Job(
                planted.fault.base,
                planted.fault.setup + planted.fault.changes,
                planted.fault.checks,
                Path(folder) / str(n),
            )
            for n, planted in enumerate(tried)
        ]
        verdicts = {}
        for planted, outcome in zip(tried, outcomes(run_job, jobs), strict=True):
            verdicts[planted.name] = show(planted, outcome)
    for planted in chosen:
        if planted.fault.escapes:
            print(f"{'escapes':10}  {planted.name}: {planted.fault.escapes}")
    return summary(chosen, verdicts, time.monotonic() - start)


def all_faults() -> Iterator[Planted]:
    """Every fault, by kind and name."""
    for kind in KINDS:
        for file in sorted((ROOT / "tests" / "kit_faults" / kind).glob("*.py")):
            module = importlib.import_module(f"tests.kit_faults.{kind}.{file.stem}")
            wrong = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            fault = module.FAULT
            assert isinstance(fault, Fault), file
            assert wrong, f"{file} needs a docstring: what is wrong, in a line"
            assert bool(fault.escapes) != bool(fault.checks and fault.says), (
                f"{file}: either `escapes`, or `checks` and `says`"
            )
            yield Planted(f"{kind}/{file.stem}", wrong.splitlines()[0], fault)


def baselines(tried: Sequence[Planted], folder: Path) -> Iterator[Job]:
    """All checks of the faults, without them: once for each base and setup."""
    together: dict[tuple[str, tuple[Change, ...]], set[str]] = {}
    for planted in tried:
        together.setdefault((planted.fault.base, planted.fault.setup), set()).update(planted.fault.checks)
    for number, ((base, setup), checks) in enumerate(together.items()):
        yield Job(base, setup, tuple(sorted(checks)), folder / f"right-{number}")


def verdict(fault: Fault, outcome: Outcome) -> str:
    """`caught`, or what is wrong: MISSED, UNSAID (another message), STALE (its text is gone), UNCLEAR (checks could not run)."""
    if outcome.problem:
        return "STALE" if outcome.stale else "UNCLEAR"
    failed = {name.rpartition("::")[2]: report for name, report in outcome.failed.items()}
    if not set(fault.checks) <= set(failed):
        return "MISSED"
    said = (re.sub(r"\nE? +|\s+", " ", failed[check]) for check in fault.checks)
    return "caught" if all(re.search(fault.says, message) for message in said) else "UNSAID"


def show(planted: Planted, outcome: Outcome) -> str:
    found = verdict(planted.fault, outcome)
    print(f"{found:10}  {planted.name:60}  {planted.wrong}", flush=True)
    if found != "caught":
        print("\n".join(f"    {line}" for line in (outcome.problem, *outcome.output.splitlines()[-15:]) if line))
    return found


def summary(chosen: Sequence[Planted], verdicts: dict[str, str], seconds: float) -> int:
    """Prints the count, of each kind too; the exit status."""
    parts = []
    for kind in KINDS:
        of_kind = [planted.name for planted in chosen if planted.name.startswith(f"{kind}/")]
        if of_kind:
            parts.append(f"{kind} {sum(verdicts.get(name) == 'caught' for name in of_kind)} of {len(of_kind)}")
    caught = sum(found == "caught" for found in verdicts.values())
    share = caught / len(chosen)
    print(f"{caught} of {len(chosen)} planted faults caught ({share:.0%}): {', '.join(parts)}; in {seconds:.0f} s")
    return 0 if caught == len(verdicts) and (share >= ENOUGH or len(chosen) < 20) else 1


# --- one copy ---------------------------------------------------------------------------------------------------------


def run_job(job: Job) -> Outcome:
    """Copies the base, changes it, and runs the checks there."""
    write_base(job.base, job.copy)
    for name, old, new in job.changes:
        [file] = [path for path in job.copy.rglob(name) if path.is_file()] or [job.copy / name]
        if stale := replace_once(file, old, new):
            return stale
    packages = [folder.name for folder in (job.copy / "src").iterdir() if folder.is_dir()]
    install(job.copy)
    tests = [str(file) for file in sorted((job.copy / "tests").glob("test_*.py"))]
    options = ("--import-mode=importlib", "-c", os.devnull, f"--rootdir={job.copy}", "-k", " or ".join(job.checks))
    outcome = run_pytest(tests, job.copy, [job.copy / "src"], packages, "-p", "no:timeout", *options)
    shutil.rmtree(job.copy)
    return outcome


def write_base(base: str, copy: Path) -> None:
    """A project's sources, suite and pyproject.toml."""
    if base.startswith("scaffold/"):
        from fastvideo_tools.commands.new_plugin import package_files

        files = package_files("mine", base.partition("/")[2], "fastvideo-mine", "none", "")
    else:
        found = [*(ROOT / base / "src").rglob("*.py"), *(ROOT / base / "tests").glob("test_conformance*.py")]
        found.append(ROOT / base / "pyproject.toml")
        files = {str(file.relative_to(ROOT / base)): file.read_text(encoding="utf-8") for file in found}
    for path, text in files.items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_text(text, encoding="utf-8")


def install(copy: Path) -> None:
    """Writes what pip would: the project's name, requirements and entry points, beside its modules."""
    with (copy / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    info = copy / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in project["dependencies"])
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{needs}"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    groups = project.get("entry-points", {}).items()
    lines = [line for group, entries in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in entries.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    sys.exit(main(sys.argv[1:]))
