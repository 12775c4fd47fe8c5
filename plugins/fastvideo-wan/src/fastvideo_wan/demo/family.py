"""The family's part of `fastvideo-distill demo`; imports no torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fastvideo_core.contracts.demo import ClipSize, FamilyDemo

SIZE = ClipSize(height=32, width=32, num_frames=9, fps=16.0)
"""What the autoencoder of this package was trained on."""


def wan_demo(*, fast: bool) -> FamilyDemo:
    """Clips of the same size, fast or not; a transformer of a third of the parameters where it is."""
    layers, width = (2, 96) if fast else (4, 128)
    # The text encoder knows the captions' words alone: the published prompt would be unknown words, which is not what the
    # teacher learns for captions that are dropped.
    config = {"negative_prompt": ""}
    return FamilyDemo(partial(_write, layers=layers, width=width), SIZE, config)


def _write(out: Path, words: tuple[str, ...], seed: int, *, layers: int, width: int) -> None:
    from fastvideo_wan.demo.pipeline import write_demo_pipeline

    write_demo_pipeline(out, words, seed=seed, layers=layers, width=width)
