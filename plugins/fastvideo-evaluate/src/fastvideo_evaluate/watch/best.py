"""Keeps the best checkpoint beside a run's others, in a folder that no rotation removes."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

from fastvideo_core.checkpoint import storage
from fastvideo_evaluate.watch.config import BEST

NOTE = "quality.json"
"""What is written into the kept folder besides: step and drift."""


def put_back(output_dir: Path) -> None:
    """Puts back the folder that a killed `keep` was just replacing, and removes what else it left."""
    best = output_dir / BEST
    replaced = best.with_name(f".{best.name}.replaced")
    if replaced.exists() and not best.exists():
        os.rename(replaced, best)
    storage.remove(replaced)
    storage.remove(storage.unfinished(best))


def kept_drift(output_dir: Path) -> float:
    """The drift of the checkpoint that is kept; infinite where there is none."""
    try:
        return float(json.loads((output_dir / BEST / NOTE).read_text(encoding="utf-8"))["drift"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def keep(checkpoint: Path, step: int, drift: float) -> None:
    """Makes `best` beside a checkpoint the same checkpoint, in place of the one before: by hard links, which take no room, or
    copies where the file system has none. It is whole or absent. Raises OSError where it cannot be written.
    """
    best = checkpoint.with_name(BEST)
    unfinished = storage.unfinished(best)
    storage.make_empty(unfinished)
    try:
        shutil.copytree(checkpoint, unfinished, copy_function=_link_or_copy, dirs_exist_ok=True)
        (unfinished / NOTE).write_text(json.dumps({"step": step, "drift": drift}) + "\n", encoding="utf-8")
        storage.sync(unfinished / NOTE)
        storage.publish(unfinished, best)
    finally:
        storage.remove(unfinished)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
        storage.sync(Path(target))
