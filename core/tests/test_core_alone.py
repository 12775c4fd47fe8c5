"""Core needs no family's libraries: every module of it is imported where there are none."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

FOREIGN = ("diffusers", "transformers", "accelerate", "peft", "pyarrow", "av", "PIL", "fastvideo_data")

EVERY_MODULE = """
import importlib, pkgutil, sys
foreign = sys.argv[1:]
for name in foreign:
    sys.modules[name] = None  # from here on its import fails
import fastvideo_core
names = [module.name for module in pkgutil.walk_packages(fastvideo_core.__path__, "fastvideo_core.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert not any(sys.modules[name] for name in foreign)
print(len(names))
"""


def test_every_module_of_core_is_imported_without_any_family_or_its_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE, *FOREIGN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


CONTRACTS = """
import sys
import torch  # which loads tqdm where there is one
for name in sys.argv[1:]:
    sys.modules[name] = None  # from here on its import fails
import fastvideo_core.contracts.method
"""


def test_the_contract_of_methods_loads_neither_data_nor_a_progress_bar() -> None:
    foreign = ("tqdm", *FOREIGN)
    done = subprocess.run([sys.executable, "-c", CONTRACTS, *foreign], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_core_asks_for_nothing_that_reads_data() -> None:
    lines = metadata.requires("fastvideo-core") or []
    needed = {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in lines if "extra ==" not in line}
    assert "torch" in needed
    assert not needed & {"pyarrow", "av", "pillow", "fastvideo-data", "fastvideo-testing", "diffusers", "transformers"}
