"""Runs `fastvideo-distill demo` on fresh seeds and says where the student beats the teacher in as many steps, and by how much.

    python benchmarks/demo_seeds.py [--seeds 1 2 3] [--out DIR] [--fast]

Demanded of every seed, against the teacher with guidance and without: in one step a higher caption accuracy and smaller distances
of both kinds; in four steps a higher caption accuracy and a smaller class-conditional distance.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fastvideo_core.cli.main import main as fastvideo_distill
from fastvideo_tools.demo.results import Results, Row, as_text, read_results

DEMANDS = {1: ("caption", "Wasserstein", "energy"), 4: ("caption", "energy")}


def values(row: Row) -> dict[str, float]:
    """Measures of which less is better; of captions the share that is missed."""
    return {"caption": 1 - row.accuracy.caption, "Wasserstein": row.wasserstein, "energy": row.energy}


def comparisons(results: Results) -> list[tuple[str, bool]]:
    """Every demand in words, and whether it is met."""
    found = []
    rows = {row.name for row in results.rows}
    for steps, names in DEMANDS.items():
        if f"student-{steps}" not in rows:  # the fast demo has one student, and no guided teacher
            continue
        student = values(results.row(f"student-{steps}"))
        for other in sorted({f"teacher-{steps}", f"teacher-{steps}-guided"} & rows):
            teacher = values(results.row(other))
            for name in names:
                label = "captions missed" if name == "caption" else name
                text = f"student-{steps} against {other}: {label} {student[name]:.4f} against {teacher[name]:.4f}"
                found.append((text, student[name] < teacher[name]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, help="keep the demos here (default: a folder that is removed)")
    parser.add_argument("--fast", action="store_true")
    args = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for seed in args.seeds:
            out = (args.out or Path(temporary)) / f"seed-{seed}"
            started = time.monotonic()
            arguments = ["demo", "--out", str(out), "--seed", str(seed), *(["--fast"] if args.fast else [])]
            if fastvideo_distill(arguments) != 0:
                return 1
            results = read_results(out / "results.json")
            print(f"\nseed {seed}, {time.monotonic() - started:.0f} s\n{as_text(results)}")
            for text, met in comparisons(results):
                print(f"  {'yes' if met else 'NO '}  {text}")
                missed += not met
    print(f"{missed} demands missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
