"""All roles of a run see the same latents and text embeddings, whichever family they are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastvideo_core import register_model
from fastvideo_core.cli.main import main
from fastvideo_testing.runs import toy_world
from fastvideo_testing.toy import ToyConfig, ToyFamily


class Spaced(ToyFamily):
    """A role's path says how many channels its latents have."""

    def latent_space(self, role: str) -> Mapping[str, object]:
        return {"channels": self.channels[role], "layout": "[B, C]"}

    def check_roles(self, cfg: Any) -> list[Any]:
        self.channels = {name: int(role.path.rpartition("/")[2]) for name, role in cfg.roles.items()}
        return []


class Silent(ToyFamily):
    """Says nothing of latents."""


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    with toy_world():
        for name, family in (("spaced", Spaced), ("other", type("Other", (Spaced,), {})), ("silent", Silent)):
            register_model(name, config=ToyConfig)(family)
        yield


def write(**roles: tuple[str, str]) -> str:
    run = {
        "recipe": {"family": "spaced", "method": "toy"},
        "roles": {
            name: {"path": path, "family": family, "trainable": name == "student"}
            for name, (path, family) in roles.items()
        },
        "training": {"output_dir": "out", "max_train_steps": 1},
    }
    Path("run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    return "run.yaml"


@pytest.mark.parametrize("arguments", [("check",), ()], ids=["check", "train"])
@pytest.mark.parametrize("family", ["spaced", "other"])
def test_a_role_of_another_latent_space_is_refused_and_both_are_named(capsys, arguments, family):
    run = write(student=("org/16", "spaced"), teacher=("org/48", family))
    assert main([*arguments, run]) == 2
    error = capsys.readouterr().err
    assert "roles.teacher.path (org/48): latents or text embeddings differ from those of student (org/16)" in error
    assert "channels 48, not 16" in error
    assert "layout" not in error


@pytest.mark.parametrize("family", ["other", "silent"])
def test_roles_that_agree_and_families_that_do_not_say_pass(capsys, family):
    assert main(["check", write(student=("org/16", "spaced"), teacher=("org/16", family))]) == 0, (
        capsys.readouterr().err
    )
