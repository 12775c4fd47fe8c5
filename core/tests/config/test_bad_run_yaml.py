"""Every way to get run.yaml wrong, and the exact words in which the user hears of it (bad_run_yaml.txt)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.errors import ConfigError

from .toy_plugins import RUN_YAML, toy_registry


def read_cases() -> dict[str, tuple[str, str]]:
    text = Path(__file__).with_name("bad_run_yaml.txt").read_text()
    cases = {}
    for part in re.split(r"^# ", text, flags=re.MULTILINE)[1:]:
        title, _, rest = part.partition("\n")
        edit, _, message = rest.partition("\n\n")
        assert title not in cases
        cases[title] = (apply(edit), message.rstrip("\n"))
    return cases


def apply(edit: str) -> str:
    """The good file with each run of diff lines carried out."""
    lines = edit.split("\n")
    if lines[0] == "whole file":
        return "".join(line[1:] + "\n" for line in lines[1:])
    text = "\n" + RUN_YAML
    for before, after in re.findall(r"((?:^[ -].*\n?)*)((?:^\+.*\n?)*)", edit, flags=re.MULTILINE):
        old = "".join("\n" + line[1:] for line in before.splitlines())
        new = "".join("\n" + line[1:] for line in before.splitlines() if line[0] == " ")
        new += "".join("\n" + line[1:] for line in after.splitlines())
        assert text.count(old + "\n") == 1 or not old, old
        text = text.replace(old + "\n", new + "\n", 1) if old else text
    return text[1:]


CASES = read_cases()


def test_the_good_file_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN_YAML)
    with toy_registry() as registry:
        load_run_config("run.yaml", registry)


@pytest.mark.parametrize("title", CASES)
def test_bad_file_is_explained(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, message = CASES[title]
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(text)
    with toy_registry() as registry, pytest.raises(ConfigError) as raised:
        load_run_config("run.yaml", registry)
    keys = ", ".join(sorted(TrainingArgs.model_fields))
    expected = message.replace("{cwd}", str(Path.cwd())).replace("{training_keys}", keys)
    assert "\n".join(str(problem) for problem in raised.value.problems) == expected
    assert raised.value.exit_code == 2


def test_many_problems_are_numbered_in_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(CASES["many"][0])
    with toy_registry() as registry, pytest.raises(ConfigError) as raised:
        load_run_config("run.yaml", registry)
    text = str(raised.value)
    assert text.startswith("the run's configuration is wrong (5 problems):\n  1. run.yaml:2 recipe.family: ")
    assert re.findall(r"^  \d\. run.yaml:(\d+)", text, flags=re.MULTILINE) == ["2", "5", "10", "11", "18"]


def test_the_allowed_keys_of_a_section_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(CASES["unknown key of another trainer"][0])
    with toy_registry() as registry, pytest.raises(ConfigError) as raised:
        load_run_config("run.yaml", registry)
    text = str(raised.value)
    assert text.count("checkpoints_total_limit, ") == 1
    assert text.count("    allowed: as in 1.\n") == 3
