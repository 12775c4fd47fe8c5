"""Makes each known mistake in a copy of the sources, one at a time, and shows that its tests notice.

    python -m tests.mutations.run_mutations [WORDS ...]

With words, only mutations whose name contains one of them. Exit status 1 when a mutation survives, when the tests do not
pass without it, or when its text is not found any more (then bring this folder up to date). The working tree is only
read.

Every run of pytest is a forked process of its own: it imports the packages afresh from its copy, while torch and other
libraries, which take far longer, are imported once.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.forked_pytest import Outcome, import_libraries_of, outcomes, replace_once, run_pytest
from tests.mutations.adversarial import ADVERSARIAL_TERM
from tests.mutations.base_precision import BASE_PRECISION
from tests.mutations.consistency import CONSISTENCY
from tests.mutations.distillation import DISTILLATION
from tests.mutations.evaluation import EVALUATION
from tests.mutations.given_frames import GIVEN_FRAMES
from tests.mutations.given_images import GIVEN_IMAGES
from tests.mutations.host_memory import HOST_MEMORY
from tests.mutations.ltx_images import LTX_IMAGES
from tests.mutations.mathematics import MATHEMATICS
from tests.mutations.merged_lora import MERGED_LORA
from tests.mutations.metrics import METRICS
from tests.mutations.mutation import Mutation
from tests.mutations.phases import PHASES
from tests.mutations.quality_watch import QUALITY_WATCH
from tests.mutations.routing import ROUTES
from tests.mutations.sequence_parallel import SEQUENCE_PARALLEL
from tests.mutations.shared_networks import SHARED_NETWORKS
from tests.mutations.simulated import SIMULATED
from tests.mutations.sizes import SIZES
from tests.mutations.sources import SOURCES
from tests.mutations.sparse_attention import SPARSE_ATTENTION
from tests.mutations.tangents import TANGENTS
from tests.mutations.updates import UPDATES_AND_LOOP

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", *(f"plugins/{folder.name}" for folder in sorted((ROOT / "plugins").iterdir()) if folder.is_dir()))
COPIED = (*(f"{package}/{part}" for package in PACKAGES for part in ("src", "tests")), "tests", "pytest.ini")
LIBRARIES = ("torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor")
LIBRARIES += ("av", "importlib_metadata", "pluggy", "pyarrow.parquet", "pydantic", "safetensors.torch", "yaml")
FAMILIES = ("fastvideo_wan.family", "fastvideo_ltx.family", "transformers.models.umt5.modeling_umt5")
MUTATIONS = (
    *MATHEMATICS,
    *UPDATES_AND_LOOP,
    *ADVERSARIAL_TERM,
    *PHASES,
    *ROUTES,
    *GIVEN_FRAMES,
    *GIVEN_IMAGES,
    *DISTILLATION,
    *CONSISTENCY,
    *TANGENTS,
    *METRICS,
    *QUALITY_WATCH,
    *EVALUATION,
    *MERGED_LORA,
    *SHARED_NETWORKS,
    *HOST_MEMORY,
    *BASE_PRECISION,
    *SEQUENCE_PARALLEL,
    *SPARSE_ATTENTION,
    *LTX_IMAGES,
    *SIZES,
    *SIMULATED,
    *SOURCES,
)


def main(words: Sequence[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    if not chosen:
        print("no mutation has such a name")
        return 1
    start = time.monotonic()
    for library in LIBRARIES:
        importlib.import_module(library)
    import_libraries_of(*FAMILIES)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        right = Path(folder) / "right"
        [baseline] = outcomes(run_job, [(None, tests, ROOT, right)])
        if baseline.problem or baseline.failed:
            print(f"{baseline.output}\nthe tests do not pass as the sources are: {baseline.problem}")
            return 1
        jobs = [(m, m.tests, right, Path(folder) / str(number)) for number, m in enumerate(chosen)]
        verdicts = []
        for mutation, outcome in zip(chosen, outcomes(run_job, jobs), strict=True):
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
    tests = {test.partition("[")[0] for test in mutation.tests}  # of one case: failures are told without it
    return "caught" if tests <= set(outcome.failed) else "SURVIVED"


Job = tuple[Mutation | None, Sequence[str], Path, Path]
"""The mistake or None, its tests, the folder to copy, and where to."""


def run_job(job: Job) -> Outcome:
    """Copies the sources, makes the mistake, runs the tests there; the right copy stays, for its compiled modules."""
    mutation, tests, original, copy = job
    for part in COPIED:
        copy_part(original / part, copy / part)
    if mutation is not None and (stale := replace_once(copy / mutation.file, mutation.old, mutation.new)):
        return stale
    sources = [copy / package / "src" for package in PACKAGES]
    outcome = run_pytest(tests, copy, sources, ["fastvideo_"])
    if mutation is not None:
        shutil.rmtree(copy)
    return outcome


def copy_part(source: Path, target: Path) -> None:
    if source.is_dir():
        # Of the working tree's compiled modules some may be being written.
        shutil.copytree(
            source, target, ignore=shutil.ignore_patterns("__pycache__") if ROOT in source.parents else None
        )
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    sys.exit(main(sys.argv[1:]))
