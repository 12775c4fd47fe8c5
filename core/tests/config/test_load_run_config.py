"""What a good run.yaml becomes, and the sources of settings besides the file itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest

from fastvideo_core import DistillMethod, RunConfig, TrainingArgs
from fastvideo_core.config import check
from fastvideo_core.config.check import training_contradictions
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import PluginRegistry, register_method

from .toy_plugins import RUN_YAML, ToyConfig, ToyMethodConfig, toy_registry


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginRegistry]:
    monkeypatch.chdir(tmp_path)
    with toy_registry() as registry:
        yield registry


def load(registry: PluginRegistry, text: str, **options: object) -> RunConfig:
    Path("run.yaml").write_text(text)
    return load_run_config("run.yaml", registry, options)


def message(registry: PluginRegistry, text: str, **options: object) -> str:
    with pytest.raises(ConfigError) as raised:
        load(registry, text, **options)
    return "\n".join(map(str, raised.value.problems))


def with_training(*lines: str) -> str:
    return RUN_YAML.replace("  learning_rate: 2e-6\n", "".join(f"  {line}\n" for line in lines))


def test_values_arrive_typed_and_defaults_are_filled_in(registry: PluginRegistry) -> None:
    cfg = load(registry, RUN_YAML)
    assert cfg.training.learning_rate == 2e-6
    assert cfg.training.validation_sampling_steps == (50,)
    assert cfg.pipeline_config == ToyConfig(flow_shift=3.0, size=(8, 8))
    assert cfg.method_config.steps == (999, 500, 0)  # type: ignore[attr-defined]
    assert cfg.callbacks["toycallback"].decay == 0.99  # type: ignore[attr-defined]
    assert cfg.source == "run.yaml"


def test_an_explicit_zero_stays_zero(registry: PluginRegistry) -> None:
    zeros = ["learning_rate: 0", "weight_decay: 0", "max_grad_norm: 0", "validation_guidance_scale: 0", "betas: [0, 0]"]
    training = load(registry, with_training(*zeros)).training
    assert (training.learning_rate, training.max_grad_norm, training.validation_guidance_scale) == (0.0, 0.0, (0.0,))
    assert training.betas == (0.0, 0.0)
    role = RUN_YAML.replace("trainable: true", "trainable: true, learning_rate: 0, max_grad_norm: 0")
    assert load(registry, role).roles["student"].learning_rate == 0.0


@pytest.mark.parametrize(
    ("written", "steps"),
    [("8", (8,)), ("'8'", (8,)), ("'8,50'", (8, 50)), ("'[8, 50]'", (8, 50)), ("[8, 50]", (8, 50))],
)
def test_sampling_steps_may_be_written_as_fastvideo_does(
    registry: PluginRegistry, written: str, steps: tuple[int, ...]
) -> None:
    assert (
        load(registry, with_training(f"validation_sampling_steps: {written}")).training.validation_sampling_steps
        == steps
    )


def test_betas_and_guidance_may_be_texts(registry: PluginRegistry) -> None:
    training = load(registry, with_training("betas: '0, 0.999'", "validation_guidance_scale: '5.0'")).training
    assert training.betas == (0.0, 0.999)
    assert training.validation_guidance_scale == (5.0,)


def test_mixed_precision_no_needs_no_quotes(registry: PluginRegistry) -> None:
    assert load(registry, with_training("mixed_precision: no")).training.mixed_precision == "no"


def test_the_config_cannot_be_changed(registry: PluginRegistry) -> None:
    cfg = load(registry, RUN_YAML)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.source = "other"  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError):
        cfg.training.seed = 1  # type: ignore[misc]


def test_the_resolved_config_reads_back_equal(registry: PluginRegistry) -> None:
    text = with_training("wandb_run_name: '1e5'", "tracker_project_name: 'no'", "betas: '0.5,0.6'", "seed: 0")
    text = text.replace("trainable: true", "trainable: true, betas: [0, 0.9], lr_scheduler: cosine, lr_warmup_steps: 2")
    cfg = load(registry, text)
    again = load(registry, cfg.to_yaml())
    assert again == cfg
    assert cfg.resolved()["training"]["checkpoints_total_limit"] == 0
    assert cfg.resolved()["roles"]["teacher"] == {"path": "org/teacher", "trainable": False, "weights": "auto"}
    assert again.training.wandb_run_name == "1e5"


def test_roles_know_their_family(registry: PluginRegistry) -> None:
    cfg = load(registry, RUN_YAML.replace("trainable: false", "trainable: false, family: toy"))
    assert cfg.role_family("student") == cfg.role_family("teacher") == "toy"
    assert cfg.family_roles("toy") == ("student", "teacher")
    assert cfg.families == ("toy",)


def test_role_paths_can_be_replaced_in_a_copy(registry: PluginRegistry) -> None:
    cfg = load(registry, RUN_YAML)
    moved = cfg.with_roles({"student": {"path": "/tmp/local"}})
    assert (moved.roles["student"].path, cfg.roles["student"].path) == ("/tmp/local", "org/student")


def test_optional_sections_may_be_absent_or_empty(registry: PluginRegistry) -> None:
    text = RUN_YAML.replace("pipeline_config:\n  flow_shift: 3\n", "").replace(
        "toycallback: {decay: 0.99}", "toycallback:"
    )
    cfg = load(registry, text)
    assert cfg.pipeline_config == ToyConfig()
    assert cfg.callbacks["toycallback"].decay == 0.9  # type: ignore[attr-defined]


def test_home_is_expanded_in_paths(
    registry: PluginRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    cfg = load(registry, RUN_YAML.replace("output_dir: out", "output_dir: ~/out"))
    assert cfg.training.output_dir == str(home / "out")


def test_options_replace_what_the_file_says(registry: PluginRegistry) -> None:
    cfg = load(registry, RUN_YAML, max_train_steps=3, resume_from_checkpoint="latest")
    assert (cfg.training.max_train_steps, cfg.training.resume_from_checkpoint) == (3, "latest")
    assert message(registry, RUN_YAML, max_train_steps="3").startswith(
        "run.yaml:9 training.max_train_steps: found '3' (text)"
    )


@pytest.mark.parametrize(
    ("name", "text"), [("p.yaml", "# shift\nflow_shift: 5\n"), ("p.json", '{\n\t"flow_shift": 5}')]
)
def test_pipeline_config_path_is_read(registry: PluginRegistry, name: str, text: str) -> None:
    Path(name).write_text(text)
    cfg = load(registry, RUN_YAML.replace("pipeline_config:\n  flow_shift: 3\n", f"pipeline_config_path: {name}\n"))
    assert cfg.pipeline_config == ToyConfig(flow_shift=5)
    assert cfg.resolved()["pipeline_config"]["flow_shift"] == 5


def test_errors_in_pipeline_config_path_name_that_file(registry: PluginRegistry) -> None:
    Path("p.json").write_text('{\n\t"flow_shift": 0,\n\t"sise": [1]\n}')
    text = RUN_YAML.replace("pipeline_config:\n  flow_shift: 3\n", "pipeline_config_path: p.json\n")
    said = message(registry, text.replace("max_train_steps: 10", "max_train_steps: 0"))
    assert said.startswith("run.yaml:9 training.max_train_steps: found 0 (a whole number)")
    assert "p.json:2 flow_shift: found 0 (a whole number)\n    allowed: a number > 0 or null" in said
    assert "p.json:3 sise: unknown key 'sise'\n    allowed: flow_shift, size\n    fix: did you mean 'size'?" in said


def test_a_plug_ins_own_check_reaches_into_pipeline_config_path(registry: PluginRegistry) -> None:
    Path("p.yaml").write_text("size: [1]\nflow_shift: 2\n")
    text = with_training("train_batch_size: 5").replace(
        "pipeline_config:\n  flow_shift: 3\n", "pipeline_config_path: p.yaml\n"
    )
    assert message(registry, text) == "p.yaml:2 flow_shift: toy takes at most 4 samples at once"


def test_a_broken_pipeline_config_path_names_both_places(registry: PluginRegistry) -> None:
    Path("p.yaml").write_text("a: [1\n")
    text = RUN_YAML.replace("pipeline_config:\n  flow_shift: 3\n", "pipeline_config_path: p.yaml\n")
    said = message(registry, text)
    assert said.startswith("run.yaml:12 pipeline_config_path: this is not YAML: ")
    assert "in: p.yaml:2" in said


def test_a_missing_run_yaml_is_one_error(registry: PluginRegistry) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: there is no such file\n    fix: check the path"):
        load_run_config("none.yaml", registry)


def test_wandb_must_be_installed_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "is_installed", lambda name: name != "wandb")
    training = TrainingArgs(output_dir="out", max_train_steps=1, trackers=("tensorboard", "wandb"))
    found = list(training_contradictions(training, {}))
    assert [(item.path, item.problem.found, item.problem.fix) for item in found] == [
        (("training", "trackers", 1), "wandb is not installed", "pip install wandb, or take it off the list")
    ]


def test_the_folder_that_wandb_leaves_behind_is_not_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not check.is_installed("some_tracker")
    assert check.is_installed("yaml")


def test_a_contradiction_waits_until_its_values_are_right(registry: PluginRegistry) -> None:
    text = with_training("lr_warmup_steps: 20").replace("max_train_steps: 10", "max_train_steps: ten")
    said = message(registry, text.replace("lr_scheduler: constant", "lr_scheduler: cosine"))
    assert "max_train_steps: found 'ten'" in said
    assert "lr_warmup_steps" not in said
    said = message(registry, text)
    assert "max_train_steps: found 'ten'" in said
    assert "lr_warmup_steps: found 20 (a whole number), but lr_scheduler constant does not use it" in said


def test_a_schedule_setting_serves_a_role_with_its_own_scheduler(registry: PluginRegistry) -> None:
    text = with_training("lr_warmup_steps: 2", "min_lr_ratio: 0.1")
    assert load(registry, text.replace("trainable: true", "trainable: true, lr_scheduler: cosine"))


def test_validation_settings_may_wait_behind_an_explicit_false(registry: PluginRegistry) -> None:
    assert load(registry, with_training("log_validation: false", "validation_steps: 5")).training.validation_steps == 5


def test_a_launcher_s_processes_are_num_gpus_where_it_is_left_out(registry: PluginRegistry) -> None:
    Path("run.yaml").write_text(with_training("hsdp_replicate_dim: 2", "learning_rate: 1"))
    assert load_run_config("run.yaml", registry, processes=4).training.num_gpus == 4
    with pytest.raises(ConfigError, match=r"allowed: a whole number that divides num_gpus 3"):
        load_run_config("run.yaml", registry, processes=3)
    Path("run.yaml").write_text(with_training("hsdp_replicate_dim: 2", "num_gpus: 2"))
    assert load_run_config("run.yaml", registry, processes=4).training.num_gpus == 2


def test_without_a_launcher_num_gpus_is_asked_for(registry: PluginRegistry) -> None:
    text = message(registry, with_training("hsdp_replicate_dim: 2"))
    assert "set num_gpus, which is 1 when it is left out and no launcher (torchrun, srun, ...)" in text


def test_optional_roles_may_be_there_and_others_may_not(registry: PluginRegistry) -> None:
    register_method("other", config=ToyMethodConfig, roles=("student",), optional_roles=("teacher", "ema"))(
        DistillMethod
    )
    run = RUN_YAML.replace("method: toymethod", "method: other")
    assert list(load(registry, run).roles) == ["student", "teacher"]
    assert list(load(registry, run.replace("  teacher: {path: org/teacher, trainable: false}\n", "")).roles) == [
        "student"
    ]
    text = message(registry, run.replace("  teacher:", "  judge: {path: org/judge}\n  techer:"))
    assert "roles.techer: the method 'other' has no role 'techer'" in text
    assert "allowed: student, teacher (optional), ema (optional)" in text
    assert "did you mean 'teacher'?" in text
    assert "the method 'other' has no role 'judge'" in text
