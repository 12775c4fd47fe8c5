"""Building runs in tests, from a dict that looks like run.yaml, with the toy family and method or any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fastvideo_core.config.run import RunConfig
from fastvideo_core.dispatch.examine import Run, examine
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.runtime import DistillRuntime, build_runtime_from_config
from fastvideo_core.registry import PluginRegistry, register_method, register_model
from fastvideo_testing.isolation import isolated_registrations
from fastvideo_testing.toy import ToyConfig, ToyFamily
from fastvideo_testing.toy_regression import ROLES, ToyMethod, ToyMethodConfig


@contextmanager
def toy_family() -> Iterator[None]:
    """Inside, the family `toy` exists; other in-process registrations are unseen and forgotten afterwards."""
    with isolated_registrations():
        register_model("toy", config=ToyConfig)(ToyFamily)
        yield


@contextmanager
def toy_method() -> Iterator[None]:
    """Inside, the method `toy` exists; other in-process registrations are unseen and forgotten afterwards."""
    with isolated_registrations():
        register_method("toy", config=ToyMethodConfig, roles=ROLES)(ToyMethod)
        yield


@contextmanager
def toy_world(*plugin_files: str | Path) -> Iterator[None]:
    """Inside, the family `toy`, the method `toy` and what the files register exist beside everything installed."""
    with toy_family():
        register_method("toy", config=ToyMethodConfig, roles=ROLES)(ToyMethod)
        for file in plugin_files:
            PluginRegistry().load_plugin_file(file)
        yield


def load_config(folder: Path, run: Mapping[str, Any]) -> RunConfig:
    """Writes `run` as run.yaml into `folder` and reads it back as the command line would."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(dict(run), sort_keys=False), encoding="utf-8")
    return load_run_config(path, PluginRegistry())


def resolve_run(folder: Path, run: Mapping[str, Any]) -> Run:
    """The run as it is resolved before it is built.

    Raises:
        UserError: with everything that is wrong with it.
    """
    return examine(load_config(folder, run), PluginRegistry(), starts=True)[0]


def build_run(folder: Path, run: Mapping[str, Any]) -> DistillRuntime:
    """The runtime of `run`, with every role built."""
    return build_runtime_from_config(load_config(folder, run), PluginRegistry())
