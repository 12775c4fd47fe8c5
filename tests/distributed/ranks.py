"""Runs what `workers.py` has, on several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastvideo_testing.ranks import run_ranks


def run_workers(world_size: int, name: str, out: Path, **options: Any) -> None:
    """The worker `name` on so many ranks; none outlives it.

    Raises:
        AssertionError: a rank failed; holds the end of what it printed.
    """
    run_ranks("tests.distributed.workers:work", {"name": name, "out": out, "options": options}, world_size=world_size)
