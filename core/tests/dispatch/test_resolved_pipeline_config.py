"""What a family's section leaves to pipelines and data is settled once, and stored with the run."""

from __future__ import annotations

import yaml

from fastvideo_core.contracts.family import ModelFamily
from fastvideo_core.registry import register_method, register_model
from fastvideo_testing.isolation import isolated_registrations
from fastvideo_testing.runs import build_run
from fastvideo_testing.toy import ToyConfig, build_toy_components
from fastvideo_testing.toy_regression import ROLES, ToyMethod, ToyMethodConfig

SEEN: list[str] = []
BUILT: list[float] = []


class Settling(ModelFamily):
    def resolve(self, cfg, *, latents_source):
        SEEN.append(cfg.roles["student"].path)
        return cfg.pipeline_config.model_copy(update={"flow_shift": 4.5})

    def build(self, cfg):
        BUILT.append(cfg.pipeline_config.flow_shift)
        return build_toy_components(cfg)


def test_the_resolved_section_is_what_the_family_builds_from_and_what_checkpoints_keep(tmp_path):
    run = {
        "recipe": {"family": "settling", "method": "toy"},
        "roles": {
            "student": {"path": "org/base", "trainable": True},
            "teacher": {"path": "org/base", "trainable": False},
        },
        "training": {"output_dir": str(tmp_path / "out"), "max_train_steps": 1},
    }
    SEEN.clear()
    BUILT.clear()
    with isolated_registrations():
        register_model("settling", config=ToyConfig)(Settling)
        register_method("toy", config=ToyMethodConfig, roles=ROLES)(ToyMethod)
        runtime = build_run(tmp_path, run)
    assert BUILT == [4.5]
    assert SEEN == ["org/base"]
    assert yaml.safe_load(runtime.cfg.to_yaml())["pipeline_config"]["flow_shift"] == 4.5
