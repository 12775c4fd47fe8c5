"""The package needs no family and no tools, and its names cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import fastvideo_data

FOREIGN = ("fastvideo_wan", "fastvideo_ltx", "fastvideo_diffusers", "fastvideo_tools", "diffusers", "transformers")

EVERY_MODULE = """
import importlib, pkgutil, sys
foreign = sys.argv[1:]
for name in foreign:
    sys.modules[name] = None  # from here on its import fails
import fastvideo_data, fastvideo_data.plugin, fastvideo_data.preprocess_command
heavy = [name for name in ("torch", "pyarrow", "av", "PIL", "numpy") if name in sys.modules]
assert not heavy, heavy
for module in pkgutil.walk_packages(fastvideo_data.__path__, "fastvideo_data."):
    importlib.import_module(module.name)
for name in fastvideo_data.__all__:
    assert getattr(fastvideo_data, name).__module__.startswith("fastvideo_data."), name
"""


def test_every_module_is_imported_without_a_family_and_the_names_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE, *FOREIGN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_the_usual_error() -> None:
    assert "DataSet" in dir(fastvideo_data)
    assert not hasattr(fastvideo_data, "Dataset")
