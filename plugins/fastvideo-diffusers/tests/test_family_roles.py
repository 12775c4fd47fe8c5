"""The roles of a run that are pipelines of one family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from fastvideo_core.config.run import RecipeConfig, RoleConfig, RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError
from fastvideo_diffusers.family_roles import FamilyRoles, open_family_roles


@dataclass(frozen=True)
class Folder:
    """A pipeline."""

    path: str
    where: str


def opened(roles: Mapping[str, dict[str, Any]]) -> FamilyRoles[Folder]:
    cfg = RunConfig(
        recipe=RecipeConfig(family="toy", method="any"),
        roles={name: RoleConfig(**role) for name, role in roles.items()},
        training=TrainingArgs(output_dir="out", max_train_steps=1),
        pipeline_config=None,
        method_config=None,
        callbacks={},
        source="run.yaml",
    )
    return open_family_roles(cfg, "toy", Folder)


def test_the_first_trainable_role_of_the_family_is_the_base():
    roles = opened(
        {
            "other": {"path": "b", "trainable": True, "family": "another"},
            "teacher": {"path": "a1", "trainable": False},
            "student": {"path": "a2", "trainable": True, "family": "some-package:toy"},
            "critic": {"path": "a3", "trainable": True},
        }
    )
    assert list(roles.folders) == ["teacher", "student", "critic"]
    assert roles.base_role == "student"
    assert roles.base == Folder("a2", where="roles.student.path")


def test_without_a_trainable_role_it_is_the_first():
    assert opened({name: {"path": "a", "trainable": False} for name in ("one", "two")}).base_role == "one"


def test_a_run_without_the_family_is_refused():
    with pytest.raises(ConfigError, match=r"roles: no role is of family 'toy'\n.*recipe.family"):
        opened({"student": {"path": "a", "trainable": True, "family": "another"}})


def test_each_pipeline_is_looked_at_once():
    roles = opened(
        {
            "teacher": {"path": "a1", "trainable": False},
            "student": {"path": "a1", "trainable": True},
            "critic": {"path": "a2", "trainable": True},
            "other": {"path": "a2", "trainable": False},
        }
    )
    assert {role: folder.path for role, folder in roles.pipelines().items()} == {"student": "a1", "critic": "a2"}
    assert roles.folders["teacher"] is roles.folders["student"]
