"""The package's names: lazily imported, all there, all told in the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import fastvideo_diffusers

README = Path(__file__).parents[1] / "README.md"


def test_importing_the_package_loads_neither_torch_nor_diffusers() -> None:
    code = "import sys, fastvideo_diffusers; print([name for name in ('torch', 'diffusers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there_and_the_package_lists_it() -> None:
    for name in fastvideo_diffusers.__all__:
        assert getattr(fastvideo_diffusers, name) is not None
    assert dir(fastvideo_diffusers) == sorted(fastvideo_diffusers.__all__)


def test_the_readme_tells_the_bases_that_an_author_derives_from() -> None:
    words = set(re.findall(r"\w+", README.read_text(encoding="utf-8")))
    bases = {name for name in fastvideo_diffusers.__all__ if name.startswith(("Pipeline", "Diffusers", "T5"))}
    assert len(bases) == 6
    assert bases <= words
