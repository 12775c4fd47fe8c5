"""The family's part of `fastvideo-distill demo`; imports no torch."""

from __future__ import annotations

from pathlib import Path

from fastvideo_core.demo.contract import ClipSize, FamilyDemo

SIZE = ClipSize(height=32, width=32, num_frames=9, fps=16.0)
"""What the autoencoder of this package was trained on."""


def wan_demo(*, fast: bool) -> FamilyDemo:
    """The same pipeline and size, fast or not."""
    # The text encoder knows the captions' words alone: the published prompt would be unknown words, which is not what the
    # teacher learns for captions that are dropped.
    return FamilyDemo(write_pipeline=_write, size=SIZE, pipeline_config={"negative_prompt": ""})


def _write(out: Path, words: tuple[str, ...], seed: int) -> None:
    from fastvideo_wan.demo.pipeline import write_demo_pipeline

    write_demo_pipeline(out, words, seed=seed)
