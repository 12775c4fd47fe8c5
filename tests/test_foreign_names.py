"""The table of other trainers' names: every name that it gives instead is an option that exists."""

from pathlib import Path

import pytest
import yaml

from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.config import foreign_names
from fastvideo_core.config.problems import unknown_key
from fastvideo_core.config.run import RecipeConfig, RoleConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import closest
from fastvideo_dmd2.config import DMD2Config
from fastvideo_dmd2.plugin import PLUGIN as DMD2
from fastvideo_finetune.config import FinetuneConfig
from fastvideo_ltx.config import LtxConfig
from fastvideo_tools.options import all_options
from fastvideo_wan.config import WanConfig

NAMES = yaml.safe_load(Path(foreign_names.__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
RENAMED, NOT_OFFERED = NAMES["renamed"], NAMES["not_offered"]
SECTIONS = {
    "recipe": [RecipeConfig],
    "roles": [],
    **{f"roles.{role}": [RoleConfig] for role in DMD2.roles},
    "training": [TrainingArgs],
    "pipeline_config": [WanConfig, LtxConfig],
    "method_config": [DMD2Config, FinetuneConfig],
    "callbacks.ema": [EMAConfig],
}
OPTIONS = {
    f"{section}.{option.name}" for section, models in SECTIONS.items() for m in models for option in all_options(m)
}


@pytest.mark.parametrize("trainer", RENAMED)
def test_every_target_is_an_option_or_a_section(trainer):
    targets = {value if isinstance(value, str) else value[0] for value in RENAMED[trainer].values()}
    assert {target for target in targets if target not in OPTIONS | SECTIONS.keys()} == set()


def test_no_name_is_listed_twice_by_one_trainer():
    for trainer, reasons in NOT_OFFERED.items():
        names = [*RENAMED[trainer], *" ".join(reasons.values()).split()]
        assert sorted(names) == sorted(set(names)), trainer


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (
            "fake_score_learning_rate",
            "FastVideo's fake_score_learning_rate is roles.critic.learning_rate here (of the method dmd2)",
        ),
        ("t_list", "FastGen's t_list is method_config.dmd_denoising_steps here (times 1000; of the method dmd2)"),
        ("data", "FastVideo's data is training here (its keys stand directly under training)"),
        ("ema", "it belongs to another section: callbacks.ema"),
        ("sampler_kind", "it belongs to another section: pipeline_config.sampler_kind"),
        ("--lora-rank", "FastVideo's --lora-rank is roles.student.lora.rank here"),
        ("network_dim", "musubi-tuner's network_dim is roles.student.lora.rank here"),
        (
            "student_update_freq",
            "FastGen's student_update_freq is method_config.generator_update_interval here (of the method dmd2)",
        ),
        ("lora", "it belongs to another section: roles.<role>.lora"),
        ("lerning_rate", "did you mean 'learning_rate'?"),
        ("learningRate", "did you mean 'learning_rate'?"),
        ("max_train_step", "did you mean 'max_train_steps'?"),
        ("frobnicate", "remove it"),
    ],
)
def test_the_hint_beside_an_unknown_key(key, said):
    assert unknown_key(key, TrainingArgs.model_fields, "training").fix == said


@pytest.mark.parametrize(
    "name", [name for reasons in NOT_OFFERED.values() for names in reasons.values() for name in names.split()]
)
def test_what_is_not_offered_is_taken_for_nothing_else(name):
    assert (
        "did you mean" not in unknown_key(name, [*TrainingArgs.model_fields, *DMD2Config.model_fields], "training").fix
    )


@pytest.mark.parametrize(
    "name", ["max_train_epoch", "cosine_with_min_lr", "score_learning_rate", "log_images", "max_lr_ratio"]
)
def test_a_name_with_another_word_in_it_is_no_slip(name):
    assert closest(name, [*TrainingArgs.model_fields, "cosine_with_restarts"]) == ""


def test_targets_of_one_method_alone_are_told_as_such():
    owners = {"dmd2": DMD2Config, "finetune": FinetuneConfig}
    for value in (value for names in RENAMED.values() for value in names.values()):
        target, note = (value, "") if isinstance(value, str) else value
        section, _, name = target.partition(".")
        having = [method for method, model in owners.items() if name in model.model_fields]
        told = [method for method in owners if note.endswith(f"of the method {method}")]
        if section == "method_config" and name:
            assert told == (having if len(having) == 1 else []), target


@pytest.mark.parametrize("key", ["data", "checkpoint", "pipeline"])
def test_sections_of_another_trainer_are_no_options_of_a_role(key):
    assert unknown_key(key, RoleConfig.model_fields, "roles.student").fix == "remove it"
