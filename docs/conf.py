"""The documentation site: Sphinx reads the Markdown pages of this folder. Built by `nox -s docs`, warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "fastvideo-distill"
author = "the fastvideo-core authors"
html_title = "fastvideo-distill"

extensions = ["myst_parser", "reference", "repository_links"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
