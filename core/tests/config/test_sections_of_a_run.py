"""A section is asked for by its class, and one that is not there is told in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvideo_core import MethodConfig, PipelineConfig, PluginConfig, RunConfig
from fastvideo_core.errors import ContractError
from fastvideo_testing import load_config, toy_world
from fastvideo_testing.toy import ToyConfig
from fastvideo_testing.toy_regression import ToyMethodConfig


@pytest.fixture
def cfg(tmp_path: Path) -> RunConfig:
    training = {"output_dir": str(tmp_path / "out"), "max_train_steps": 1}
    roles = {name: {"path": "org/toy", "trainable": name == "student"} for name in ("student", "teacher")}
    with toy_world():
        run = {"recipe": {"family": "toy", "method": "toy"}, "roles": roles, "training": training}
        return load_config(tmp_path, run)


def test_a_section_is_found_by_its_class_or_a_base_of_it(cfg: RunConfig) -> None:
    assert cfg.section(ToyMethodConfig) is cfg.section(MethodConfig) is cfg.method_config
    assert cfg.section(ToyConfig) is cfg.pipeline_config


def test_a_section_that_no_plug_in_has_is_told_with_those_that_are_there(cfg: RunConfig) -> None:
    class Other(PluginConfig): ...

    with pytest.raises(ContractError, match=r"the run has no Other, but ToyConfig of toy and ToyMethodConfig of toy\n"):
        cfg.section(Other)
    assert isinstance(cfg.pipeline_config, PipelineConfig)
