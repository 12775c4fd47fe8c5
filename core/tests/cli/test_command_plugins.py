"""Commands that packages bring by entry points in `fastvideo.commands`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fastvideo_core.cli import main as cli
from fastvideo_core.registry.discovery import find_installed
from fastvideo_testing.fake_packages import install

PLUGIN = """\
from fastvideo_core.registry.specs import CommandPlugin
PLUGIN = CommandPlugin(name="{name}", api=(1, 0), help="count the words of a text", impl="{module}.command:COMMAND")
"""

COMMAND = """\
from fastvideo_core.registry.specs import Command

def add_arguments(parser):
    parser.add_argument("text")

def run(args):
    print(len(args.text.split()), "words", args.registry is not None, args.typed[0])
    return 3

COMMAND = Command(add_arguments, run)
"""

Bring = Callable[..., None]


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bring:
    """Installs a package with one command, beside which nothing is installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    found: list[str] = []
    monkeypatch.setattr(
        "fastvideo_core.registry.registry.find_installed",
        lambda: [item for item in find_installed() if item.distribution in found],
    )

    def bring(name: str, module: str, *, command: str = COMMAND, plugin: str = PLUGIN) -> None:
        found.append(f"acme-{module}")
        install(
            tmp_path,
            f"acme-{module}",
            entry_points=f"[fastvideo.commands]\n{name} = {module}.plugin:PLUGIN\n",
            modules={f"{module}/plugin.py": plugin.format(name=name, module=module), f"{module}/command.py": command},
        )

    return bring


def test_a_third_partys_command_runs_and_is_listed(bring: Bring, capsys: pytest.CaptureFixture[str]) -> None:
    bring("words", "words_package")
    assert cli.main(["words", "one two"]) == 3
    assert capsys.readouterr().out == "2 words True words\n"
    assert cli.main(["words", "--help"]) == 0
    assert "Count the words of a text." in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert re.search("\n  words +count the words of a text\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("module", "sources", "cause"),
    [
        ("fails", {"command": "import surely_absent"}, "'surely_absent', which it imports, is not"),
        ("no_command", {"command": "COMMAND = print"}, "not a Command"),
        ("no_spec", {"plugin": "PLUGIN = 1"}, "fastvideo.commands takes CommandPlugin"),
    ],
)
def test_a_broken_command_is_an_error_where_it_is_typed(
    module: str, sources: dict[str, str], cause: str, bring: Bring, capsys: pytest.CaptureFixture[str]
) -> None:
    bring("words", module, **sources)
    assert cli.main(["words", "one"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: acme-{module} 1.2.0 (entry point fastvideo.commands: words = {module}.plugin:PLUGIN)"
    )
    assert cause in said


def test_a_broken_command_is_shown_and_is_in_nobodys_way(bring: Bring, capsys: pytest.CaptureFixture[str]) -> None:
    bring("words", "broken_package", plugin="PLUGIN = 1")
    assert cli.main(["plugins"]) == 0
    assert "BROKEN words: " in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert re.search("\n  words +BROKEN: see `fastvideo-distill plugins`\n", capsys.readouterr().out)


def test_a_package_cannot_take_the_name_of_a_command_of_core(bring: Bring, capsys: pytest.CaptureFixture[str]) -> None:
    bring("plugins", "greedy_package")
    assert cli.main(["plugins", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert "the command 'plugins' is broken: core has a command of that name itself" in listed["reason"]


@pytest.mark.parametrize(
    ("command", "package"),
    [("report", "fastvideo-tools"), ("preprocess", "fastvideo-data"), ("trajectories", "fastvideo-kd")],
)
def test_a_command_that_is_not_installed_names_its_package(
    command: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastvideo_core.registry.registry.find_installed", lambda hidden=False: ())
    assert cli.main([command, "x"]) == 2
    said = capsys.readouterr().err
    assert said == f"error: no command {command!r} is installed (installed: none)\n    fix: pip install {package}\n"
    assert cli.main(["--help"]) == 0
    assert re.search(f"\n  {command} +pip install {package}\n", capsys.readouterr().out)
