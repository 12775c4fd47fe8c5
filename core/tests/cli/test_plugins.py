"""`plugins`, `--help` and the way errors leave the program; none of them loads torch."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvideo_core.cli import main as cli
from fastvideo_core.cli.plugins import as_text
from fastvideo_core.cli.table import render_table
from fastvideo_core.errors import FastVideoError
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.registry.discovery import find_installed
from fastvideo_testing.fake_packages import install, method_spec
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
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Only what a test brings itself is there."""
    monkeypatch.setattr("fastvideo_core.registry.registry.find_installed", lambda: ())
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    with isolated_registrations():
        yield


def test_nothing_installed_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins"]) == 0
    out = capsys.readouterr().out
    assert "No model family is installed. Get one with: pip install fastvideo-wan" in out
    assert "No method is installed. Get one with: pip install fastvideo-finetune fastvideo-dmd2" in out


def test_plugins_lists_what_a_file_registers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--plugin", "mine.py", "plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "PACKAGE", "API", "STATE", "DETAILS"]
    assert lines[1].split("  ")[0] == "model family"
    assert [line.partition(" ok ")[2].strip() for line in lines[1:3]] == [
        "reads: MyPipeline",
        "roles: student, judge (optional)",
    ]
    assert len(lines) == 3


def test_plugins_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "--json", "--plugin", "mine.py"]) == 0
    family, method = json.loads(capsys.readouterr().out)
    found = family["name"], family["kind"], family["pipelines"], family["roles"]
    assert found == ("myfamily", "models", ["MyPipeline"], None)
    assert (method["roles"], method["optional_roles"]) == (["student"], ["judge"])
    assert (method["distribution"], method["api"]) == ("mine.py", [1, 0])
    assert method["healthy"] is True
    assert method["reason"] is None


def test_a_broken_plug_in_is_shown_with_its_reason_and_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(MINE.replace("config=Nothing", 'config="surely_absent_module:x"'))
    assert cli.main(["plugins", "--plugin", "mine.py"]) == 0
    out = capsys.readouterr().out
    assert "BROKEN myfamily: mine.py" not in out
    assert "BROKEN myfamily: fastvideo_plugin_mine_" in out
    assert "its `config` is declared as surely_absent_module:x, and that module does not exist" in out
    assert "ok      roles: student, judge (optional)" in out


@pytest.mark.parametrize(
    ("change", "status"), [(("", ""), 0), (("config=Nothing", 'config="surely_absent_module:x"'), 1)]
)
def test_strict_is_exit_code_1_when_something_is_wrong(change: tuple[str, str], status: int) -> None:
    Path("mine.py").write_text(MINE.replace(*change))
    assert cli.main(["plugins", "--strict", "--plugin", "mine.py"]) == status
    assert cli.main(["plugins", "--strict", "--json", "--plugin", "mine.py"]) == status


def test_strict_is_exit_code_1_where_a_package_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = "[fastvideo.methods]\nmine = strict_pkg.plugin:PLUGIN\n"
    modules = {"strict_pkg/plugin.py": method_spec("mine", "strict_pkg")}
    modules |= {f"strict_pkg/{name}.py": "" for name in ("method", "config")}
    install(tmp_path, "strict-dist", entry_points=entry, modules=modules, requires=("surely-absent>=2",))
    found = tuple(item for item in find_installed() if item.distribution == "strict-dist")
    monkeypatch.setattr("fastvideo_core.registry.registry.find_installed", lambda: found)
    assert cli.main(["plugins"]) == 0
    assert cli.main(["plugins", "--strict"]) == 1
    assert "incomplete strict-dist: needs surely-absent>=2" in capsys.readouterr().out


def test_two_of_one_name_are_both_in_the_table_and_explained_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("again.py").write_text(MINE)
    assert cli.main(["plugins", "--plugin", "mine.py", "--plugin", "again.py"]) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("method ") and " BROKEN" in line for line in out.splitlines()) == 2
    assert out.count("BROKEN mine: 2 plug-ins are named 'mine': ") == 1


def test_a_command_of_another_package_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "training"]) == 2
    assert capsys.readouterr().err.endswith("fix: pip install fastvideo-tools\n")


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in cli.COMMANDS)
    assert cli.main([]) == 0
    assert capsys.readouterr().out == out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fastvideo-distill 0.")


def test_an_unknown_command_is_the_users_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chek", "run.yaml"]) == 2
    assert capsys.readouterr().err == (
        f"error: unknown command 'chek'\n    allowed: a run.yaml, or one of {', '.join(cli._known_commands(PluginRegistry()))}\n"
        "    fix: did you mean 'check'?\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["run.yaml"],
        ["some/where/run"],
        ["train", "run.yaml"],
        ["--plugin", "mine.py", "run.yaml"],
        ["--plugin=mine.py", "--debug", "run.yaml"],
        ["--resume", "latest", "run.yaml"],
        ["run.yaml", "--help"],
    ],
)
def test_a_file_without_a_command_is_trained(arguments: list[str]) -> None:
    name, rest = cli._split(arguments, PluginRegistry())
    assert name == "train"
    assert rest == [item for item in arguments if item != "train"]


def test_a_file_named_like_a_command_does_not_hide_it() -> None:
    Path("check").write_text("")
    assert cli._split(["check", "run.yaml"], PluginRegistry()) == ("check", ["run.yaml"])


def test_wrong_arguments_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "--jsn"]) == 2
    assert "unrecognized arguments: --jsn" in capsys.readouterr().err


def test_a_plug_in_file_that_fails_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.py").write_text("1 / 0\n")
    assert cli.main(["plugins", "--plugin", "bad.py"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: bad.py: the file fails: ZeroDivisionError: division by zero (")
    assert "Traceback" not in err
    assert cli.main(["plugins", "--plugin", "bad.py", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


NO_ROOM = os.strerror(errno.ENOSPC)
FREE = "    fix: free space, remove what the command left half-written, and give it again"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FastVideoError("the disk is full"), 1, "error: the disk is full\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (RuntimeError("a bug"), 1, "RuntimeError: a bug\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"), 1, f"error: [Errno 28] {NO_ROOM}: '/x'\n{FREE}\n"),
        (
            RuntimeError(f"I/O error: {NO_ROOM} (os error 28)"),
            1,
            f"error: I/O error: {NO_ROOM} (os error 28)\n{FREE}\n",
        ),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: PluginRegistry) -> None:
        raise error

    monkeypatch.setattr(PluginRegistry, "list", fail)
    assert cli.main(["plugins"]) == code
    assert capsys.readouterr().err.endswith(said)


def test_tables_wrap_between_words_and_stay_aligned() -> None:
    text = render_table(("A", "B"), [("one_long_name", "many words " * 5), ("x", "y")], width=30)
    assert text.splitlines() == [
        "A              B",
        "one_long_name  many words many",
        "               words many",
        "               words many",
        "               words many",
        "               words",
        "x              y",
    ]


def test_an_empty_table_is_no_table() -> None:
    assert "KIND" not in as_text((), 80)


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running `code`."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('|', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"}
    )
    return {name.partition(".")[0] for name in done.stdout.rpartition("|")[2].split()}


COMMAND = "from fastvideo_core.cli.main import main; main({})"


@pytest.mark.parametrize(
    ("code", "light"),
    [
        ("import fastvideo_core", ("torch", "numpy", "pydantic", "yaml")),
        ("import fastvideo_core.registry", ("torch", "numpy", "pydantic", "yaml")),
        ("import fastvideo_core.config", ("torch", "numpy")),
        ("import fastvideo_core.dispatch.load_run_config", ("torch", "numpy")),
        (COMMAND.format(["--help"]), ("torch", "numpy", "pydantic", "yaml")),
        (COMMAND.format(["plugins"]), ("torch", "numpy", "pydantic", "yaml")),
    ],
)
def test_listing_and_describing_load_nothing_heavy(code: str, light: tuple[str, ...]) -> None:
    loaded = modules_after(code)
    assert "fastvideo_core" in loaded
    assert not loaded.intersection(light)


def test_an_allow_list_is_mentioned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_DISTILL_PLUGINS", "")
    assert cli.main(["plugins"]) == 0
    assert "FASTVIDEO_DISTILL_PLUGINS hides the plug-ins of all distributions but: none\n" in capsys.readouterr().out
