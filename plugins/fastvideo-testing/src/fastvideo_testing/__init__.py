"""The conformance kit: suites that a plug-in's own tests subclass, and what they are made of.

    from fastvideo_testing import MethodPluginSuite

    class TestMyMethod(MethodPluginSuite):
        plugin = "my-method"

Needs pytest: `pip install fastvideo-core[testing]`. Nothing outside of tests imports this.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "MethodPluginSuite": "methods",
    "ModelPluginSuite": "models",
    "CallbackPluginSuite": "callbacks",
    "Packing": "family_suite",
    "toy_family": "runs",
    "toy_method": "runs",
    "toy_world": "runs",
    "load_config": "runs",
    "build_run": "runs",
    "ToyConfig": "toy",
    "ToyAdapter": "toy",
    "ToyMethod": "toy_regression",
    "take_step": "steps",
    "StepRecord": "steps",
    "PerSampleDraws": "draws",
    "fake_process_group": "ranks",
    "run_ranks": "ranks",
    "InMemoryTracker": "tracker",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fastvideo_testing' has no attribute '{name}'")
    try:
        module = importlib.import_module(f"fastvideo_testing.{_EXPORTS[name]}")
    except ModuleNotFoundError as error:
        if error.name == "pytest":
            raise ImportError("the conformance kit needs pytest: pip install 'fastvideo-core[testing]'") from error
        raise
    return getattr(module, name)
