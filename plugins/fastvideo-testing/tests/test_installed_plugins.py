"""The check that only installed packages can fail: spec and options load without torch, in a fresh interpreter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fastvideo_testing import CallbackPluginSuite, MethodPluginSuite, ModelPluginSuite
from fastvideo_testing.fake_packages import install

SPECS = {
    "methods": 'MethodPlugin("heavy", (1, 0), "{0}.impl:Impl", "{0}.config:Config", ("student",))',
    "models": 'ModelPlugin("heavy", (1, 0), "{0}.impl:Impl", "{0}.config:Config")',
    "callbacks": 'CallbackPlugin("heavy", (1, 0), "{0}.impl:Impl", "{0}.config:Config")',
}
SUITES: dict[str, type[Any]] = {
    "methods": MethodPluginSuite,
    "models": ModelPluginSuite,
    "callbacks": CallbackPluginSuite,
}
SPEC = "from fastvideo_core.registry import CallbackPlugin, MethodPlugin, ModelPlugin\nPLUGIN = {spec}\n"
CONFIG = "from fastvideo_core import PluginConfig\n\nclass Config(PluginConfig):\n    pass\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this process and those that it starts import from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    return tmp_path


def check(site: Path, kind: str, package: str, *, spec: str = "", config: str = "") -> None:
    modules = {
        f"{package}/plugin.py": spec + SPEC.format(spec=SPECS[kind].format(package)),
        f"{package}/config.py": config + CONFIG,
        f"{package}/impl.py": "import torch\n\nclass Impl:\n    pass\n",
    }
    install(site, package, entry_points=f"[fastvideo.{kind}]\nheavy = {package}.plugin:PLUGIN\n", modules=modules)
    suite = type("Suite", (SUITES[kind],), {"plugin": "heavy"})()
    with suite.world():
        suite.test_spec_and_config_load_without_torch()


def test_an_implementation_may_import_torch(site: Path) -> None:
    check(site, "methods", "light")


@pytest.mark.parametrize("kind", list(SPECS))
def test_a_spec_that_imports_torch_is_caught(site: Path, kind: str) -> None:
    with pytest.raises(
        AssertionError, match=rf"loading spec_{kind}\.plugin:PLUGIN imports torch, .* `if TYPE_CHECKING:`"
    ):
        check(site, kind, f"spec_{kind}", spec="import torch\n")


def test_options_that_import_torch_are_caught(site: Path) -> None:
    with pytest.raises(AssertionError, match=r"loading heavy_config\.config:Config imports torch, "):
        check(site, "methods", "heavy_config", config="import torch\n")


def test_options_that_fail_in_a_fresh_interpreter_are_caught(site: Path) -> None:
    with pytest.raises(AssertionError, match=r"in a fresh interpreter it cannot be loaded:\n(.|\n)*no luck"):
        check(site, "methods", "failing_config", config="raise RuntimeError('no luck')\n")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("print('hello')\n", r"prints 'hello', which gets into what commands print"),
        ("import os\nos.environ['MINE'] = '1'\n", "changes the environment variable MINE of the whole process"),
        ("import logging\nlogging.basicConfig()\n", "changes logging of the whole process"),
        (
            "sum(hash(str(number)) for number in range(12_000_000))\n",
            r"takes \d\.\d s of the processor, whenever plug-ins are listed",
        ),
    ],
)
def test_a_spec_that_does_things_is_caught(site: Path, spec: str, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check(site, "methods", f"busy{sum(map(ord, says))}", spec=spec)
