"""`schema`: every option of a section or plug-in, as a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.cli import main as cli
from fastvideo_core.registry.discovery import find_installed
from fastvideo_testing.isolation import isolated_registrations

MINE = """\
from typing import Literal
from fastvideo_core import PluginConfig
from fastvideo_core.registry import register_method, register_model
from pydantic import Field

class MyConfig(PluginConfig):
    speed: float = Field(0.5, ge=0, le=1, description="How fast it goes.")
    kind: Literal["slow", "fast"] = Field(description="Which kind it is.")

class Nothing(PluginConfig):
    pass

@register_method("mine", config=MyConfig, roles=("student",), optional_roles=("judge",))
class Mine:
    pass

@register_model("myfamily", config=Nothing, pipelines=("MyPipeline",))
def build(cfg):
    pass
"""


@pytest.fixture(autouse=True)
def commands_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Of what is installed the commands are there, and nothing that run.yaml can name."""
    found = tuple(item for item in find_installed() if item.kind == "commands")
    monkeypatch.setattr("fastvideo_core.registry.registry.find_installed", lambda: found)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    with isolated_registrations():
        yield


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["schema", *arguments]) == 0
    return capsys.readouterr().out


def test_a_method_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "mine", "--plugin", "mine.py").splitlines()
    assert lines[:2] == ["roles: student, judge (optional)", "method_config of method mine"]
    assert [line.split() for line in lines[3:]] == [
        ["OPTION", "ALLOWED", "DEFAULT", "MEANING"],
        ["speed", "a", "number", "from", "0", "to", "1", "0.5", "How", "fast", "it", "goes."],
        ["kind", "one", "of", "slow,", "fast", "required", "Which", "kind", "it", "is."],
    ]


def test_a_section_without_options(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "myfamily", "--plugin", "mine.py")
    assert out == "pipeline_config of family myfamily has no options.\n"


@pytest.mark.parametrize(
    ("name", "option"), [("training", "learning_rate"), ("roles", "trainable"), ("recipe", "family")]
)
def test_cores_sections(name: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, name)
    assert f"\n{option} " in out
    assert max(map(len, out.splitlines())) <= 100


def test_something_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "trainin"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no section or plug-in 'trainin'\n    allowed: recipe, roles, training\n"
        "    fix: did you mean 'training'?\n"
    )
    assert cli.main(["schema", "dmd2"]) == 2
    assert capsys.readouterr().err == "error: 'dmd2' is not installed\n    fix: pip install fastvideo-dmd2\n"


OLD = """\
from fastvideo_core import Callback, PluginConfig, register_callback
from pydantic import Field

class Config(PluginConfig):
    every: int = Field(1, ge=1, deprecated="since 0.3: use steps", description="Steps.")

@register_callback("old", config=Config)
class Old(Callback):
    pass
"""


def test_a_deprecated_option_says_what_to_use(capsys: pytest.CaptureFixture[str]) -> None:
    Path("old.py").write_text(OLD)
    assert "Steps. (deprecated since 0.3: use steps)" in shown(capsys, "old", "--plugin", "old.py")
    options: dict[str, Any] = json.loads(shown(capsys, "old", "--json", "--plugin", "old.py"))["properties"]
    assert options["every"]["deprecated"] is True


def test_it_loads_no_torch() -> None:
    script = "import sys\nfrom fastvideo_core.cli.main import main\n"
    script += "for name in ('training', 'ema', 'throughput', 'run'): assert main(['schema', name]) == 0, name\n"
    script += "print('|', *(name for name in ('torch', 'numpy') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.rpartition("|")[2].strip() == ""
