"""What is marked deprecated is told once, with what to use instead: in `check`, in training, in `plugins`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from fastvideo_core import Callback, PluginConfig, register_callback
from fastvideo_core.cli.main import main
from fastvideo_core.config.base import StrictModel
from fastvideo_core.config.describe import json_schema
from fastvideo_core.errors import PluginError
from fastvideo_core.registry import MethodPlugin
from fastvideo_testing import build_run, toy_world


class Inner(StrictModel):
    width: int = Field(1, deprecated="since 0.2: use height", description="A width.")


class OldConfig(PluginConfig):
    every: int = Field(1, ge=1, deprecated="since 0.3: use callbacks.old.steps", description="Steps.")
    steps: int = Field(1, ge=1, description="Steps.")
    inner: Inner = Field(Inner(), description="More.")


class Old(Callback):
    """Does nothing."""


OF_PLUGIN = (
    "the callback 'old' of test_deprecations.py is deprecated since 0.4: use the callback 'new' of fastvideo-new"
)
OF_OPTION = "callbacks.old.every is deprecated since 0.3: use callbacks.old.steps"
OF_INNER = "callbacks.old.inner.width is deprecated since 0.2: use height"


@pytest.fixture(autouse=True)
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    with toy_world():
        mark = "since 0.4: use the callback 'new' of fastvideo-new"
        register_callback("old", config=OldConfig, deprecated=mark)(Old)
        yield


def run_of(**options: Any) -> dict[str, Any]:
    roles = {name: {"path": f"toy/{name}", "trainable": name == "student"} for name in ("student", "teacher")}
    return {
        "recipe": {"family": "toy", "method": "toy"},
        "roles": roles,
        "training": {"output_dir": "out", "max_train_steps": 1},
        "callbacks": {"old": options},
    }


def test_check_tells_of_plug_ins_and_options_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(yaml.safe_dump(run_of(every=2, inner={"width": 3})))
    assert main(["check", "run.yaml"]) == 0
    out = capsys.readouterr().out
    assert [out.count(f"  warning: {text}\n") for text in (OF_PLUGIN, OF_OPTION, OF_INNER)] == [1, 1, 1]


def test_an_option_that_run_yaml_does_not_name_is_not_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(yaml.safe_dump(run_of(steps=2)))
    assert main(["check", "run.yaml"]) == 0
    out = capsys.readouterr().out
    assert OF_PLUGIN in out
    assert "callbacks.old." not in out


def test_training_logs_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build_run(tmp_path, run_of(every=2)).train()
    said = [record.message for record in caplog.records]
    assert [said.count(OF_PLUGIN), said.count(OF_OPTION)] == [1, 1]


def test_plugins_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    [row] = [line for line in out.splitlines() if line.startswith("callback") and " old " in line]
    assert " deprecated" in row
    assert "old is deprecated since 0.4: use the callback 'new' of fastvideo-new" in out
    assert main(["plugins", "--json"]) == 0
    by_name = {item["name"]: item["deprecated"] for item in json.loads(capsys.readouterr().out)}
    assert by_name["old"] == "since 0.4: use the callback 'new' of fastvideo-new"
    assert by_name["toy"] is None
    options = json_schema(OldConfig)["properties"]
    assert [options[name].get("deprecated") for name in ("every", "steps")] == [True, None]


def test_a_mark_must_say_since_when_and_what_to_use() -> None:
    with pytest.raises(PluginError, match="deprecated is True, not a text such as 'since 0"):
        register_callback("soon", config=OldConfig, deprecated=True)(Old)  # type: ignore[arg-type]
    spec = MethodPlugin("m", (1, 0), "a:B", "a:C", (), deprecated="")
    assert len(spec.flaws()) == 1
