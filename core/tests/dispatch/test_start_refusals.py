"""What the start of a run refuses, `check` says in the same words, and both before anything is built."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core import Callback, ModelComponents, PluginConfig, RoleConfig, RunConfig, ValidationRequest
from fastvideo_core.cli import main as cli
from fastvideo_core.contracts.adapter import AddNoise, ExtractFeatures, NumTrainTimesteps, PredictNoise
from fastvideo_core.dispatch.examine import device_warnings
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.output_dir import LOCK
from fastvideo_core.dispatch.role_weights import role_source
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.registry import PluginRegistry, register_callback, register_method, register_model
from fastvideo_core.tracking import wandb_login
from fastvideo_testing import toy_world
from fastvideo_testing.fake_packages import CONFIG, ENTRY, install, method_spec
from fastvideo_testing.toy import ToyAdapter, ToyConfig, ToyFamily
from fastvideo_testing.toy_regression import ROLES, ToyMethod, ToyMethodConfig


class EveryConfig(PluginConfig):
    every: int


Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with toy_world():
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "pkg"]:
        del sys.modules[name]


def run() -> dict[str, Any]:
    roles = {name: {"path": "org/toy", "trainable": name == "student"} for name in ROLES}
    training = {"output_dir": "out", "max_train_steps": 1}
    return {"recipe": {"family": "toy", "method": "toy"}, "roles": roles, "training": training}


def both(capsys: pytest.CaptureFixture[str], edit: Edit) -> str:
    """The refusal, which is the same from `check` and from a start that must not get as far as building roles."""
    told = run()
    edit(told)
    Path("run.yaml").write_text(json.dumps(told))
    said = []
    for command in (["check", "run.yaml"], ["run.yaml"]):
        assert cli.main(command) == 2
        said.append(re.sub(r"^error: .* problems\):\n", "", capsys.readouterr().err))
        assert "Traceback" not in said[-1]
    assert said[0] == said[1]
    assert [path.name for path in Path("out").glob("*") if path.name != LOCK] == []
    return said[0]


def fancy(told: dict[str, Any]) -> None:
    told["recipe"]["method"] = "fancy"
    told["roles"] = {"student": {"path": "org/toy", "trainable": True}}


def test_a_run_that_is_fine_is_no_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(json.dumps(run()))
    assert cli.main(["check", "run.yaml"]) == 0, capsys.readouterr().err


def test_frozen_weights_that_no_family_holds_so(capsys: pytest.CaptureFixture[str]) -> None:
    def edit(told: dict[str, Any]) -> None:
        told["roles"][next(name for name in ROLES if name != "student")]["base_precision"] = "fp8"

    assert "base_precision: the family 'toy' holds no weights as fp8" in both(capsys, edit)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({}, "its module pkg.method does not exist"),
        ({"pkg/method.py": ""}, "pkg.method has no 'Fancy'"),
        ({"pkg/method.py": "Fancy = 3\n"}, "its `impl` pkg.method:Fancy is 3, not a class"),
        ({"pkg/method.py": "class Fancy: pass\n"}, "Fancy'>, not a subclass of fastvideo_core.DistillMethod"),
        ({"pkg/method.py": "import no_such_module\n"}, "'no_such_module', which it imports, is not"),
        ({"pkg/method.py": "1 / 0\n"}, "importing pkg.method fails: ZeroDivisionError"),
    ],
)
def test_a_method_s_class_that_cannot_be_used(
    modules: dict[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"pkg/plugin.py": method_spec(), "pkg/config.py": CONFIG, **modules}
    install(tmp_path, "fancy-dist", entry_points=ENTRY.format(package="pkg"), modules=sources)
    assert said in both(capsys, fancy)


METHOD = "from fastvideo_core import DistillMethod\nclass Fancy(DistillMethod): ...\n"


@pytest.mark.parametrize(("requirement", "refused"), [("no-such-package>=2", True), ("numpy<0.1", False)])
def test_a_requirement_that_is_not_met(
    requirement: str, refused: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not there is refused; another version than the authors name may work, and is told."""
    sources = {"pkg/plugin.py": method_spec(), "pkg/config.py": CONFIG, "pkg/method.py": METHOD}
    install(tmp_path, "fancy-dist", entry_points=ENTRY.format(package="pkg"), modules=sources, requires=(requirement,))
    if refused:
        error = both(capsys, fancy)
        assert f"fancy-dist needs what is not installed: {requirement}" in error
        assert f"fix: pip install '{requirement}'" in error
        return
    told = run()
    fancy(told)
    Path("run.yaml").write_text(json.dumps(told))
    assert cli.main(["check", "run.yaml"]) == 0
    assert f"warning: fancy-dist needs {requirement}, found " in capsys.readouterr().out


def test_a_callback_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    from fastvideo_core import Callback, PluginConfig

    class Fails(Callback):
        def __init__(self, config: PluginConfig) -> None:
            raise KeyError("speed")

    for name, implementation in (("none", object), ("fails", Fails)):
        register_callback(name, config=PluginConfig)(implementation)
    assert "is <class 'object'>, not a subclass of fastvideo_core.Callback" in both(
        capsys, lambda told: told.update(callbacks={"none": {}})
    )
    error = both(capsys, lambda told: told.update(callbacks={"fails": {}}))
    assert "the callback 'fails' cannot be made: KeyError: 'speed'" in error


def test_what_a_method_needs_and_the_family_s_adapter_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoFeatures:
        prepare_batch = ToyAdapter.prepare_batch
        predict_noise = ToyAdapter.predict_noise

        def __init__(self) -> None:
            self.num_train_timesteps = 1000

    class Needs(ToyMethod):
        @classmethod
        def needs(cls, cfg: Any) -> tuple[type, ...]:
            return (NumTrainTimesteps, PredictNoise, ExtractFeatures, AddNoise)

    register_method("needs", config=ToyMethodConfig, roles=ROLES)(Needs)
    monkeypatch.setattr(ToyFamily, "adapter_class", lambda self: NoFeatures)
    error = both(capsys, lambda told: told["recipe"].update(method="needs"))
    for name in ("extract_features", "add_noise"):
        assert f"family 'toy', NoFeatures: lacks the primitive '{name}', which method 'needs' needs" in error
    assert "num_train_timesteps" not in error  # an instance may have it


def test_wandb_without_a_login(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    error = both(capsys, lambda told: told["training"].update(trackers=["wandb"]))
    assert "training.trackers: wandb would not start: not logged in to api.wandb.ai" in error
    assert "fix: run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline, or remove wandb" in error
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2)
    assert cli.main(["check", "run.yaml"]) == 0
    assert "0123456789abcdef" not in "".join(capsys.readouterr())


def test_what_only_the_family_can_say_of_its_pipelines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(self: ToyFamily, cfg: Any, *, latents_source: Any) -> ToyConfig:
        raise ConfigError(Problem("no scheduler here", where="roles.student.path"))

    monkeypatch.setattr(ToyFamily, "resolve", resolve)
    assert "roles.student.path: no scheduler here" in both(capsys, lambda told: None)


def test_where_a_wandb_login_is_looked_for(tmp_path: Path) -> None:
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    for text, ok in (("[default]\nmode = offline\n", True), ("[default]\napi_key = x\n", True), ("no ini", False)):
        settings.write_text(text)
        assert wandb_login.wandb_login({}, tmp_path)[0] is ok
    (tmp_path / ".netrc").write_bytes(b"\xff machine")
    assert "cannot be read as a netrc file" in wandb_login.wandb_login({}, tmp_path)[1]


@pytest.mark.parametrize("path", ["$HOME/out", "${SCRATCH}/out", "/data/$USER", "~nobody-of-that-name/out"])
@pytest.mark.parametrize("key", ["output_dir", "data_path", "role", "pipeline_config_path"])
def test_variables_in_paths(path: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(told: dict[str, Any]) -> None:
        place = told["roles"]["student"] if key == "role" else told if key.startswith("pipeline") else told["training"]
        place["path" if key == "role" else key] = path

    error = both(capsys, edit)
    said = "there is no home folder ~nobody-of-that-name" if path.startswith("~") else "are not expanded here"
    assert f"{said}: write the path out (found '{path}' (text))" in error


def test_a_folder_whose_name_has_a_dollar_sign_is_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "$cratch").mkdir()
    told = run()
    told["training"]["output_dir"] = "$cratch"
    Path("run.yaml").write_text(json.dumps(told))
    assert cli.main(["check", "run.yaml"]) == 0, capsys.readouterr().err


def test_more_processes_than_this_machine_has_gpus(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No refusal: the run may be meant for another machine, or for several."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    told = run()
    told["training"]["num_gpus"] = 2
    Path("run.yaml").write_text(json.dumps(told))
    cfg = load_run_config("run.yaml", PluginRegistry())
    assert device_warnings(cfg) == [
        "training.num_gpus is 2, and this machine shows 1: each process needs a GPU of its own"
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_warnings(cfg) == []


def register_sampling() -> None:
    """A method that samples videos, and a family that can."""

    @register_method("sampling", config=ToyMethodConfig, roles=ROLES)
    class Sampling(ToyMethod):
        def log_validation(self, iteration: int) -> None: ...

    @register_model("sampled", config=ToyConfig)
    class Sampled(ToyFamily):
        def build(self, cfg: RunConfig) -> ModelComponents:
            components = super().build(cfg)
            components.validator = NoVideos()
            return components

        def validates(self) -> bool:
            return True


class NoVideos:
    """A validator that has nothing to do."""

    def set_tracker(self, tracker: Any) -> None: ...

    def log_validation(self, step: int, request: ValidationRequest) -> None: ...


def test_intervals_that_are_longer_than_the_run_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n")
    register_sampling()
    told = run()
    told["recipe"] = {"family": "sampled", "method": "sampling"}
    told["training"] |= {"log_validation": True, "validation_dataset_file": "prompts.txt", "validation_steps": 50}
    told["training"] |= {"training_state_checkpointing_steps": 20, "logging_steps": 2}
    register_callback("seldom", config=EveryConfig)(Callback)
    register_callback("always", config=EveryConfig)(Callback)
    told["callbacks"] = {"ema": {"start_step": 1}, "seldom": {"every": 2}, "always": {"every": 1}}
    Path("run.yaml").write_text(json.dumps(told))
    notes = [
        "training.validation_steps 50 is more than the 1 steps of the run: nothing is validated",
        "training.training_state_checkpointing_steps 20 is more than the 1 steps of the run: only its end is saved",
        "training.logging_steps 2 is more than the 1 steps of the run: only its last step is logged",
        "callbacks.ema.start_step 1: the callback does nothing in the 1 steps of the run",
        "callbacks.seldom.every 2: the callback does nothing in the 1 steps of the run",
    ]
    assert cli.main(["check", "run.yaml"]) == 0
    out = capsys.readouterr().out
    assert [line.removeprefix("  warning: ") for line in out.splitlines() if "warning" in line] == notes
    assert cli.main(["run.yaml", "--dry-run"]) == 0
    assert [record.message for record in caplog.records if record.levelname == "WARNING"][: len(notes)] == notes


def validated(told: dict[str, Any]) -> None:
    Path("prompts.json").write_text('{"data": [{"caption": "a cat"}]}')
    told["training"] |= {"log_validation": True, "validation_steps": 1, "validation_dataset_file": "prompts.json"}


def test_a_method_that_samples_no_videos_is_refused_where_validation_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = both(capsys, validated)
    assert "training.log_validation" in said
    assert "the method 'toy' samples no videos: it does not define log_validation" in said
    assert "set it to false" in said


def test_a_family_without_a_validator_is_refused_before_a_step_where_validation_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    register_sampling()

    def edit(told: dict[str, Any]) -> None:
        validated(told)
        told["recipe"]["method"] = "sampling"

    said = both(capsys, edit)
    assert "the family 'toy' gives no validator, so that nothing would be sampled" in said


def test_a_family_that_only_promised_a_validator_is_refused_before_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    class Promises(ToyFamily):
        def validates(self) -> bool:
            return True

    register_sampling()
    register_model("promises", config=ToyConfig)(Promises)
    told = run()
    validated(told)
    told["recipe"] = {"family": "promises", "method": "sampling"}
    Path("run.yaml").write_text(json.dumps(told))
    assert cli.main(["run.yaml"]) == 2
    assert "the family 'promises' gives no validator, so that nothing would be sampled" in capsys.readouterr().err
    assert [path.name for path in Path("out").glob("*") if path.name != LOCK] == []


def test_a_hub_id_has_neither_roles_nor_averages() -> None:
    asked = RoleConfig(path="org/teacher", trainable=False, checkpoint_role="student", weights="ema")
    with pytest.raises(ConfigError) as caught:
        role_source("teacher", asked)
    for line in ("roles.teacher.checkpoint_role", "roles.teacher.weights"):
        assert f"{line}: is for checkpoints, and org/teacher is none" in str(caught.value)
