"""`new-plugin` and `init`."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from fastvideo_core import API_VERSION, __version__
from fastvideo_core.cli import main as cli
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.registry import PluginRegistry
from fastvideo_testing import toy_world
from fastvideo_tools.commands.init import run_yaml
from fastvideo_tools.commands.new_plugin import KINDS, LICENCES, package_files
from fastvideo_tools.json_schema import run_schema

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


# --- new-plugin -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_file_of_a_new_package_is_filled_in_and_parses(kind: str) -> None:
    files = package_files("my-thing", kind, "acme-thing", "mit", "Ada Lovelace")
    assert {"pyproject.toml", "README.md", "LICENSE", ".gitignore", "tests/test_conformance.py"} <= set(files)
    assert {"src/acme_thing/plugin.py", "src/acme_thing/config.py", "src/acme_thing/__init__.py"} <= set(files)
    for path, text in files.items():
        assert not re.search(r"@\w+@", text), path
        if path.endswith(".py"):
            compile(text, path, "exec")
    assert (
        f'[project.entry-points."fastvideo.{KINDS[kind]}"]\nmy-thing = "acme_thing.plugin:PLUGIN"'
        in files["pyproject.toml"]
    )
    assert "Ada Lovelace" in files["LICENSE"]


@pytest.mark.parametrize("licence", list(LICENCES))
def test_the_licence_is_a_choice(licence: str) -> None:
    files = package_files("x", "method", "fastvideo-x", licence, "me")
    assert ("LICENSE" in files) == (licence != "none")
    assert (f'license = "{LICENCES[licence]}"' in files["pyproject.toml"]) == (licence != "none")


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_new_package_has_what_a_published_one_needs(kind: str) -> None:
    where = "https://example.org/acme/thing/"
    files = package_files("my-thing", kind, "acme-thing", "mit", "Ada Lovelace", where)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    urls = {"Repository": "https://example.org/acme/thing", "Issues": "https://example.org/acme/thing/issues"}
    assert project["urls"] == urls
    assert "Typing :: Typed" in project["classifiers"]
    assert files["src/acme_thing/py.typed"] == ""
    jobs = yaml.safe_load(files[".github/workflows/tests.yml"])["jobs"]
    steps = [step["run"] for step in jobs["tests"]["steps"] if "run" in step]
    assert {'pip install -e ".[test]"', "pytest", "mypy --strict src"} <= set(steps)
    oldest = jobs["tests"]["strategy"]["matrix"]["python"][0]
    assert project["requires-python"] == f">={oldest}"
    (row,) = re.findall(r"^\| 0\.1 \| (\S+) \| (\S+) \| (\S+) and later \|$", files["README.md"], re.MULTILINE)
    assert row == (".".join(__version__.split(".")[:2]), ".".join(map(str, API_VERSION)), oldest)
    assert f"fastvideo-core>={row[0]},<" in project["dependencies"][0]
    assert files["README.md"].startswith("# acme-thing\n")


def test_new_plugin_writes_the_package_and_says_what_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new-plugin", "mine", "--kind", "method"]) == 0
    assert (tmp_path / "fastvideo-mine" / "src" / "fastvideo_mine" / "method.py").is_file()
    said = capsys.readouterr().out
    assert "pip install -e '.[test]'\n  pytest" in said
    assert "[project.urls] in pyproject.toml" in said
    assert cli.main(["new-plugin", "mine", "--kind", "method"]) == 2
    assert "fastvideo-mine: is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["My_Method"], "NAME: found 'My_Method'\n    allowed: small letters, digits and single hyphens"),
        (["mine", "--distribution", "fastvideo"], "'fastvideo' is another project's name"),
    ],
)
def test_names_that_pip_could_not_tell_apart_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new-plugin", *arguments, "--kind", "method"]) == 2
    assert said in capsys.readouterr().err


# --- init -------------------------------------------------------------------------------------------------------------

METHOD = """\
from typing import Literal
from fastvideo_core import DistillMethod, MethodConfig, register_method
from fastvideo_core.errors import Problem
from pydantic import Field

class Config(MethodConfig):
    kind: Literal["slow", "fast"] = Field(description="Which kind it is")
    speed: float = Field(default=0.5, description="How fast it goes")

    def check_run(self, cfg):
        wrong = cfg.roles["judge"].trainable or not cfg.roles["pupil"].trainable
        return [("roles", Problem("the judge must be frozen, the pupil trained"))] if wrong else []

@register_method("mine", config=Config, roles=("pupil", "judge"))
class Mine(DistillMethod):
    pass
"""


def test_init_finds_the_roles_that_the_method_accepts(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    with toy_world(tmp_path / "mine.py"):
        registry = PluginRegistry()
        text = run_yaml("toy", "mine", registry, "toy/learned", None)
        (tmp_path / "run.yaml").write_text(text)
        cfg = load_run_config(tmp_path / "run.yaml", registry)
    assert {name: role.trainable for name, role in cfg.roles.items()} == {"pupil": True, "judge": False}
    assert cfg.resolved()["method_config"]["kind"] == "slow"
    assert '  # Which kind it is\n  kind: "slow"\n' in text
    assert "#   speed: 0.5  # How fast it goes" in text


def test_init_writes_out_what_a_method_needs_of_other_sections(tmp_path: Path) -> None:
    own = 'pipeline_options = {"sampler_kind": "sde"}\n    training_options = {"max_train_steps": 70, "betas": [0, 0.9]}\n'
    (tmp_path / "mine.py").write_text(METHOD.replace("    kind:", f"    {own}    kind:"))
    with toy_world(tmp_path / "mine.py"):
        registry = PluginRegistry()
        (tmp_path / "run.yaml").write_text(run_yaml("toy", "mine", registry, "toy/learned", None))
        cfg = load_run_config(tmp_path / "run.yaml", registry)
    assert cfg.resolved()["pipeline_config"]["sampler_kind"] == "sde"
    assert (cfg.training.max_train_steps, cfg.training.betas) == (70, (0.0, 0.9))


def test_init_shows_optional_roles_as_comments(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        METHOD.replace(', "judge")', ',), optional_roles=("judge",)').replace('cfg.roles["judge"].trainable or ', "")
    )
    with toy_world(tmp_path / "mine.py"):
        registry = PluginRegistry()
        text = run_yaml("toy", "mine", registry, "toy/learned", None)
        for shown, roles in ((text, ["pupil"]), (text.replace("  # judge: {", "  judge: {"), ["pupil", "judge"])):
            (tmp_path / "run.yaml").write_text(shown)
            assert list(load_run_config(tmp_path / "run.yaml", registry).roles) == roles
    assert '  # judge: {path: "toy/learned", trainable: false}  # optional\n' in text


def test_init_puts_trained_roles_on_the_networks_of_a_frozen_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    with toy_world(tmp_path / "mine.py"):
        assert cli.main(["init", "toy", "mine", "--model", "toy/learned", "--one-base"]) == 0
        roles = load_run_config(tmp_path / "run.yaml", PluginRegistry()).roles
        assert (roles["pupil"].share, roles["judge"].share) == ("judge", None)
        assert roles["pupil"].lora is not None
    alone = METHOD.replace(', "judge")', ",)").replace('cfg.roles["judge"].trainable or ', "")
    (tmp_path / "mine.py").write_text(alone)
    with toy_world(tmp_path / "mine.py"):
        assert cli.main(["init", "toy", "mine", "--model", "toy/learned", "--one-base", "--out", "no.yaml"]) == 2
    assert "--one-base: method 'mine' has no frozen role" in capsys.readouterr().err
    assert not (tmp_path / "no.yaml").exists()


def test_init_fills_in_what_is_required_inside_an_option(tmp_path: Path) -> None:
    source = METHOD.replace(
        "class Config(",
        "from fastvideo_core import PluginConfig\n\n"
        "class Pace(PluginConfig):\n    steps: int = Field(ge=3, description='How many')\n"
        "    pair: tuple[float, float] = Field(strict=False, description='Two')\n    name: str = 'x'\n\n"
        "class Config(",
    ).replace("    kind: L", "    pace: Pace = Field(description='Pace')\n    kind: L")
    (tmp_path / "mine.py").write_text(source)
    with toy_world(tmp_path / "mine.py"):
        registry = PluginRegistry()
        text = run_yaml("toy", "mine", registry, "toy/learned", None)
    assert '  pace: {"steps": 3, "pair": [1, 1]}\n' in text


def test_every_option_that_is_commented_out_may_be_uncommented(tmp_path: Path) -> None:
    with toy_world():
        registry = PluginRegistry()
        text = run_yaml("toy", "toy", registry, "toy/learned", None)
        lines = [line.replace("#   ", "  ", 1) if line.startswith("#   ") else line for line in text.splitlines()]
        lines = [
            line.removeprefix("# ") if line in ("# pipeline_config:", "# method_config:") else line for line in lines
        ]
        (tmp_path / "run.yaml").write_text("\n".join(lines[: lines.index("# callbacks:")]))
        load_run_config(tmp_path / "run.yaml", registry)


def test_init_overwrites_nothing_and_needs_no_path_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with toy_world():
        assert cli.main(["init", "toy", "toy", "--model", "toy/x"]) == 0
        assert cli.main(["init", "toy", "toy", "--model", "toy/x"]) == 2
        assert "run.yaml: there is a file already" in capsys.readouterr().err
        assert (
            cli.main(["init", "toy", "toy", "--model", "absent/folder/x", "--data", "absent", "--out", "b.yaml"]) == 0
        )
    run = yaml.safe_load((tmp_path / "b.yaml").read_text())
    assert run["roles"]["student"]["path"] == "absent/folder/x"
    assert run["training"]["data_path"] == "absent"


def test_new_plugin_refuses_names_that_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new-plugin", "ema", "--kind", "callback"]) == 2
    assert "NAME: the callback 'ema' is there already, from fastvideo-core" in capsys.readouterr().err
    assert cli.main(["new-plugin", "ema", "--kind", "method", "--distribution", "torch"]) == 2
    err = capsys.readouterr().err
    assert "--distribution: torch " in err
    assert "is installed already" in err
    assert not list(tmp_path.iterdir())


def test_what_init_writes_satisfies_the_schema(tmp_path: Path) -> None:
    with toy_world():
        registry = PluginRegistry()
        schema = run_schema(registry)
        run = yaml.safe_load(run_yaml("toy", "toy", registry, "toy/learned", None))
    jsonschema.Draft202012Validator(schema).validate(run)
    run["method_config"] = {"guidance_scal": 1}
    with pytest.raises(jsonschema.ValidationError, match="guidance_scal"):
        jsonschema.Draft202012Validator(schema).validate(run)


def test_a_package_that_is_half_written_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> int:
        if self.name == "pyproject.toml":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write_text(self, *args, **kwargs)  # type: ignore[arg-type]

    write_text = Path.write_text
    monkeypatch.setattr(Path, "write_text", full)
    assert cli.main(["new-plugin", "mine", "--kind", "method", "--out", str(tmp_path / "plugin")]) == 1
    assert not list(tmp_path.glob("p*"))
