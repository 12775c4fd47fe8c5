"""The suite for methods passes a good one, and for each of its checks there is a wrong method that it catches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.errors import ContractError, PluginError
from fastvideo_testing import MethodPluginSuite

GOOD = """\
from typing import Protocol

import torch
from fastvideo_core import DistillMethod, MethodConfig, register_method
from fastvideo_core.contracts.adapter import AddNoise, NumTrainTimesteps, PredictX0, PredictX0Guided, ShiftAndClampTimestep
from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.errors import Problem
from fastvideo_core.optim import build_lr_scheduler, build_optimizer
from pydantic import Field


class Config(MethodConfig):
    guidance_scale: float = Field(default=2.0, ge=0, description="Guidance of the teacher")

    def check_run(self, cfg):
        wanted = {"student": True, "teacher": False}
        wrong = [role for role in wanted if cfg.roles[role].trainable is not wanted[role]]
        return [(f"roles.{role}.trainable", Problem(f"must be {wanted[role]}")) for role in wrong]


class Needs(NumTrainTimesteps, ShiftAndClampTimestep, AddNoise, PredictX0, PredictX0Guided, Protocol): ...


@register_method("mine", config=Config, roles=("student", "teacher"))
class Mine(DistillMethod[Needs]):
    def __init__(self, cfg, bundle, adapter, validator=None):
        super().__init__(cfg, bundle, adapter, validator)
        self.student, self.teacher = bundle["student"], bundle["teacher"]
        self.student.optimizers["adamw"] = build_optimizer(self.student, cfg)
        self.student.lr_schedulers["adamw"] = build_lr_scheduler(
            self.student.optimizers["adamw"], cfg, "student", num_updates=cfg.training.max_train_steps
        )
        self.seen = 0

    def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)
        generator = self.rng.local("timestep")
        u = torch.rand(prepared.batch_size, generator=generator)
        t = self.adapter.shift_and_clamp_timestep(u * self.adapter.num_train_timesteps)
        noisy = self.adapter.add_noise(prepared.latents, self.noise_like(prepared.latents, "noise"), t)
        with torch.no_grad():
            scale = self.cfg.method_config.guidance_scale
            target = self.adapter.predict_x0_guided(self.teacher, noisy, t, prepared, guidance_scale=scale)
        kind = self.cfg.method_config.attn_kind
        x0 = self.adapter.predict_x0(self.student, noisy, t, prepared, conditional=True, attn_kind=kind)
        loss = mean_per_sample((x0 - target) ** 2, prepared.loss_weight).mean()
        self.seen += 1
        return {"total_loss": loss * (1 + 1 / self.seen)}, {}, {"level": u.mean()}

    def checkpoint_state(self):
        return {"seen": self.seen}

    def load_checkpoint_state(self, state):
        self.seen = state["seen"]
"""
FAULTS = Path(__file__).resolve().parents[3] / "tests" / "kit_faults" / "methods"
STEADY = ("(1 + 1 / self.seen)", "1.0")
"""Accumulation and processes are checked with a loss that does not depend on how often it was asked for."""


def suite_of(folder: Path, *changes: tuple[str, str], **attributes: Any) -> MethodPluginSuite:
    """A suite for `GOOD` with replacements, as its author would write it."""
    source = GOOD
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new)
    file = folder / "mine.py"
    file.write_text(source)
    return type("Suite", (MethodPluginSuite,), {"plugin": "mine", "plugin_file": file, **attributes})()


CHECKS = [name for name in dir(MethodPluginSuite) if name.startswith("test_") and "two_processes" not in name]


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_method_passes(tmp_path: Path, check: str) -> None:
    run_check(suite_of(tmp_path, *([STEADY] if "accumulate" in check else [])), check, tmp_path)


OWN_FAMILY = """\
from fastvideo_core import register_model
from fastvideo_testing import ToyAdapter, ToyConfig
from fastvideo_testing.toy import build_toy_components


class PredictTwice(Protocol):
    def predict_twice(self, handle, noisy_latents, t, batch): ...


class TwiceAdapter(ToyAdapter):
    def predict_twice(self, handle, noisy_latents, t, batch):
        return 2 * self.predict_x0(handle, noisy_latents, t, batch, conditional=True)


@register_model("twice", config=ToyConfig)
def build(cfg):
    components = build_toy_components(cfg)
    components.adapter = TwiceAdapter(1.0)
    return components


class Needs(PredictTwice, """


def test_a_method_with_a_primitive_of_its_own_is_tested_on_a_family_that_has_it(tmp_path: Path) -> None:
    changes = [
        ("class Needs(", OWN_FAMILY),
        (
            "self.adapter.predict_x0(self.student, noisy, t, prepared, conditional=True, attn_kind=kind)",
            "0.5 * (TWICE)",
        ),
        ("TWICE", "self.adapter.predict_twice(self.student, noisy, t, prepared)"),
    ]
    suite = suite_of(tmp_path, *changes, family="twice")
    for number, check in enumerate(
        (
            "test_it_declares_every_primitive_that_it_uses",
            "test_a_family_without_its_primitives_is_refused_before_training",
        )
    ):
        (tmp_path / str(number)).mkdir()
        run_check(suite, check, tmp_path / str(number))


def run_check(suite: MethodPluginSuite, check: str, folder: Path) -> None:
    function = getattr(suite, check)
    takes_folder = "tmp_path" in _parameters(function)
    with suite.world():
        if check == "test_spec_and_config_load_without_torch":
            with pytest.raises(pytest.skip.Exception, match="a single file has no spec module"):
                function()
        elif takes_folder:
            function(folder)
        else:
            function()


def _parameters(function: Any) -> list[str]:
    import inspect

    return list(inspect.signature(function).parameters)


OTHER_OPTIMIZER = '        self.seen = 0\n        self.teacher.optimizers["adamw"] = torch.optim.SGD([{}], 0.1)\n'

AVERAGED = """\
    @classmethod
    def extra_roles(cls, cfg, bundle, adapter):
        return [bundle["student"].copy("target")]

    @torch.no_grad()
    def optimizers_schedulers_step(self, iteration):
        super().optimizers_schedulers_step(iteration)
        for (_, average), (_, p) in zip(self.bundle["target"].named_parameters(), self.student.named_parameters()):
            average.lerp_(p, 0.5)

    def checkpoint_state"""
"""A target that is averaged and not saved."""

WRONG = [
    (
        "test_an_update_changes_the_due_roles_and_nothing_else",
        [("    def checkpoint_state", AVERAGED)],
        r"step 1 changed transformer\..* of target, which is frozen \(one that the method changes is `saved`\)",
    ),
    (
        "test_a_resumed_run_ends_like_one_that_was_never_interrupted",
        [("    def checkpoint_state", AVERAGED)],
        "weights of target differ",
    ),
    (
        "test_it_is_healthy_in_the_list_of_plug_ins",
        [("config=Config", 'config="json:dumps"')],
        r"its `config` json:dumps is <function dumps .*, not a subclass of fastvideo_core\.PluginConfig",
    ),
    (
        "test_it_is_healthy_in_the_list_of_plug_ins",
        [("config=Config", 'config="surely_absent:Config"')],
        "`fastvideo-distill plugins` shows it as BROKEN:\n.*surely_absent:Config, and that module does not exist",
    ),
    (
        "test_every_option_says_what_it_means",
        [(', description="Guidance of the teacher"', "")],
        r"Config has options without a meaning: guidance_scale; declare them with Field\(\.\.\., description=",
    ),
    (
        "test_every_option_says_what_it_means",
        [
            ("class Config(", "class Inner(MethodConfig):\n    width: int = 1\n\n\nclass Config("),
            (
                "    guidance_scale: float",
                '    inner: Inner = Field(default=Inner(), description="x")\n    guidance_scale: float',
            ),
        ],
        r"Config has options without a meaning: inner\.width;",
    ),
    (
        "test_the_config_survives_being_written_and_read",
        [
            (
                "    guidance_scale: float",
                '    tags: frozenset[str] = Field(default=frozenset({"a"}), description="x")\n    guidance_scale: float',
            )
        ],
        "Config does not survive the run.yaml that the run's folder keeps",
    ),
    (
        "test_an_unknown_option_is_refused_by_name",
        [("class Config(MethodConfig):\n", 'class Config(MethodConfig):\n    model_config = {"extra": "ignore"}\n')],
        "Config accepts the unknown option no_plugin_has_this_option: a misspelt option would be dropped in silence",
    ),
    (
        "test_it_declares_every_primitive_that_it_uses",
        [("AddNoise, PredictX0, ", "PredictX0, ")],
        r"the method uses adapter\.add_noise, which it does not declare: let the Protocol that Mine is generic in inherit",
    ),
    (
        "test_it_declares_every_primitive_that_it_uses",
        [("DistillMethod[Needs]", "DistillMethod[dict]")],
        "method 'mine' names what it needs, but dict is no Protocol",
    ),
    (
        "test_a_family_without_its_primitives_is_refused_before_training",
        [
            (
                "    def checkpoint_state",
                "    @classmethod\n    def needs(cls, cfg):\n        return [Bases]\n\n    def checkpoint_state",
            ),
            ("@register_method", "class Bases(AddNoise, PredictX0): ...\n\n\n@register_method"),
        ],
        "method 'mine' names what it needs, but Bases is no Protocol",
    ),
    (
        "test_a_missing_role_is_refused_by_name",
        [('roles=("student", "teacher")', 'roles=("student", "teacher", "judge")')],
        "a run without the role judge trains all the same, .*: leave it out of the spec's `roles`",
    ),
    (
        "test_a_missing_role_is_refused_by_name",
        [('bundle["teacher"]', 'bundle.roles.get("teacher")'), ("def check_run(", "def check_of_run(")],
        "without the role teacher a run ends in an error that does not name it:\nAttributeError: 'NoneType'",
    ),
    (
        "test_the_kind_of_attention_is_passed_on_or_refused",
        [(", attn_kind=kind", "")],
        "with `attn_kind: vsa` every trained network is called as without it: pass attn_kind to the adapter's",
    ),
    (
        "test_losses_are_finite_scalars",
        [(").mean()\n", ")\n")],
        r"total_loss of step 1 has shape \[4\], not a scalar",
    ),
    (
        "test_losses_are_finite_scalars",
        [("loss * (1 + 1 / self.seen)", 'loss * float("nan")')],
        "total_loss of step 1 is nan",
    ),
    (
        "test_losses_are_finite_scalars",
        [
            ('return {"total_loss"', 'return {"loss"'),
            (
                "    def checkpoint_state",
                BACKWARD := (
                    '    def backward(self, loss_map, outputs, *, grad_accum_rounds=1):\n        loss_map["loss"].backward()\n\n'
                    "    def checkpoint_state"
                ),
            ),
        ],
        "step 1 gave the losses loss; the one that is back-propagated is called total_loss",
    ),
    (
        "test_metrics_are_finite_and_hold_no_graph",
        [('{"level": u.mean()}', '{"level": loss}')],
        r"the metric level still has its graph, .*; detach\(\) it",
    ),
    (
        "test_gradients_reach_the_due_roles_only",
        [
            (
                "    def single_train_step",
                (
                    "    def due_roles(self, iteration):\n        return [self.student] if iteration % 2 else []\n\n"
                    "    def single_train_step"
                ),
            )
        ],
        r"step 2 leaves a gradient .* in student, which is not due \(due_roles\)",
    ),
    (
        "test_gradients_reach_the_due_roles_only",
        [
            ("with torch.no_grad():", "with torch.enable_grad():"),
            (
                "        self.seen = 0\n",
                "        self.seen = 0\n        next(self.teacher.named_parameters())[1].requires_grad_(True)\n",
            ),
        ],
        r"step 1 leaves a gradient .* in teacher, which is frozen: compute it under torch\.no_grad\(\)",
    ),
    (
        "test_gradients_reach_the_due_roles_only",
        [
            (
                "x0 = self.adapter.predict_x0(self.student, noisy, t, prepared, conditional=True, attn_kind=kind)",
                "x0 = 0 * self.adapter.predict_x0(self.student, noisy, t, prepared, conditional=True, attn_kind=kind)",
            )
        ],
        "step 1 updates student, but all its gradients are 0",
    ),
    (
        "test_an_update_changes_the_due_roles_and_nothing_else",
        [
            (
                "        self.seen += 1\n",
                "        self.seen += 1\n        next(self.teacher.named_parameters())[1].data.add_(1e-3)\n",
            )
        ],
        "step 1 changed .* of teacher before the update",
    ),
    (
        "test_an_update_changes_the_due_roles_and_nothing_else",
        [
            (
                "    def checkpoint_state",
                "    def optimizers_zero_grad(self, iteration):\n        pass\n\n    def checkpoint_state",
            )
        ],
        "after step 1 student still has the gradient of .*: it would be added to the next step's",
    ),
    (
        "test_an_update_changes_the_due_roles_and_nothing_else",
        [
            (
                "    def checkpoint_state",
                "    def get_optimizers(self, iteration):\n        return []\n\n    def checkpoint_state",
            )
        ],
        "step 1 updates student, but not one of its weights changed",
    ),
    (
        "test_random_numbers_come_from_the_method_s_streams",
        [("torch.rand(prepared.batch_size, generator=generator)", "torch.rand(prepared.batch_size)")],
        r"step 1 drew from torch's global generator, .*; pass generator=self\.rng\.local\(NAME\)",
    ),
    (
        "test_equal_runs_are_equal",
        [("generator = self.rng.local", "generator = torch.Generator(); generator.seed()  # self.rng.local")],
        r"two runs with the same seed .*: weights of student differ, first transformer",
    ),
    (
        "test_the_student_comes_nearer_to_the_data",
        [("(x0 - target) ** 2", "(x0 + target) ** 2")],
        "after 400 steps with a perfect teacher the samples of student are .* is a sign wrong in the loss",
    ),
    (
        "test_the_student_comes_nearer_to_the_data",
        [("loss * (1 + 1 / self.seen)", "-loss.clamp(max=100)")],
        "is a sign wrong in the loss",
    ),
    (
        "test_rounds_accumulate_to_one_large_batch",
        [STEADY, ("    def checkpoint_state", BACKWARD.replace('"loss"', '"total_loss"'))],
        (
            "step 1: two accumulation rounds of 2 samples against one of 4: the gradient of student.transformer.* is off by "
            ".*; divide the loss by grad_accum_rounds in `backward`"
        ),
    ),
    (
        "test_rounds_accumulate_to_one_large_batch",
        [STEADY, (").mean()\n", ").sum()\n")],
        "average over samples",
    ),
    (
        "test_a_resumed_run_ends_like_one_that_was_never_interrupted",
        [('return {"seen": self.seen}', "return {}"), ('self.seen = state["seen"]', "pass")],
        r"4 steps, a resume and 4 more steps against 8 steps at once \(checkpoint_state .*\): weights of student differ",
    ),
]


@pytest.mark.parametrize(
    ("check", "changes", "message"), WRONG, ids=[f"{number}-{case[0][5:40]}" for number, case in enumerate(WRONG)]
)
def test_a_wrong_method_is_caught(tmp_path: Path, check: str, changes: list[tuple[str, str]], message: str) -> None:
    # What core itself says of a wrong plug-in is left as it is.
    with pytest.raises((AssertionError, ContractError, PluginError, ValueError), match=message):
        run_check(suite_of(tmp_path, *changes), check, tmp_path)


CLAMPED = """\
from fastvideo_core import register_model
from fastvideo_testing import ToyAdapter, ToyConfig
from fastvideo_testing.toy import build_toy_components


class ClampingAdapter(ToyAdapter):
    def shift_and_clamp_timestep(self, t):
        return super().shift_and_clamp_timestep(t).clamp(300.0, 700.0)


@register_model("clamping", config=ToyConfig)
def build(cfg):
    components = build_toy_components(cfg)
    components.adapter = ClampingAdapter(cfg.pipeline_config.flow_shift)
    return components


class Needs("""

WRAPPED = """\
class Outer(torch.optim.AdamW):
    def __init__(self, inner):
        super().__init__(inner.param_groups)
        self.inner = inner

    def step(self, closure=None):
        self.inner.step()


class Needs("""

PREDICTED = """\
        with torch.no_grad():
            earlier = self.adapter.predict_x0(self.teacher, noisy, t, prepared, conditional=True)
            noisy = self.adapter.add_noise(earlier, 0.01 * noisy, t)
        with torch.no_grad():
"""

AVERAGE_IS_SAMPLED = """\
    @classmethod
    def extra_roles(cls, cfg, bundle, adapter):
        average = bundle["student"].copy("average")
        average.saved = True
        return [average]

    @torch.no_grad()
    def optimizers_schedulers_step(self, iteration):
        super().optimizers_schedulers_step(iteration)
        for (_, average), (_, p) in zip(self.bundle["average"].named_parameters(), self.student.named_parameters()):
            average.lerp_(p, 0.5)

    def log_validation(self, iteration):
        if self.validator is not None:
            for request in self.many_step_requests(self.bundle["average"], iteration):
                self.validator.log_validation(iteration, request)

    def checkpoint_state"""


@pytest.mark.parametrize(
    ("changes", "check", "attributes"),
    [
        ([("class Needs(", CLAMPED)], "test_timesteps_are_shifted_once", {"family": "clamping"}),
        (
            [
                ("class Needs(", WRAPPED),
                ("build_optimizer(self.student, cfg)", "Outer(build_optimizer(self.student, cfg))"),
            ],
            "test_every_optimizer_that_steps_is_a_role_s",
            {},
        ),
        ([("        with torch.no_grad():\n", PREDICTED)], "test_noise_is_standard_normal", {}),
        ([("    def checkpoint_state", AVERAGE_IS_SAMPLED)], "test_validations_sample_the_student", {}),
        (
            [
                (
                    "u = torch.rand(prepared.batch_size, generator=generator)",
                    "u = torch.full((prepared.batch_size,), 1.0)",
                )
            ],
            "test_networks_are_called_at_the_noise_level_of_their_input",
            {},
        ),
        ([], "test_optimizers_have_the_settings_of_the_run", {"training": {"optimizer": "muon", "weight_decay": 0.1}}),
    ],
    ids=[
        "a shift that clamps",
        "an optimizer in another",
        "noise that is predicted",
        "the average is sampled",
        "pure noise",
        "muon",
    ],
)
def test_what_the_contract_allows_passes(
    tmp_path: Path, changes: list[tuple[str, str]], check: str, attributes: dict[str, Any]
) -> None:
    run_check(suite_of(tmp_path, *changes, **attributes), check, tmp_path)


def test_every_check_has_a_wrong_method_that_it_catches() -> None:
    elsewhere = {
        "test_spec_and_config_load_without_torch",  # test_installed_plugins.py
        "test_two_processes_give_the_gradients_of_one",  # below, slow
    }
    planted = re.findall(r"test_\w+", "".join(file.read_text(encoding="utf-8") for file in FAULTS.glob("*.py")))
    if not planted:
        pytest.skip("the planted faults are the repository's")
    checks = {name for name in dir(MethodPluginSuite) if name.startswith("test_")}
    assert checks - {case[0] for case in WRONG} - set(planted) == elsewhere - set(planted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([STEADY], ""),
        ([STEADY, (").mean()\n", ").sum()\n")], "losses must be means over samples"),
        (
            [STEADY, ("loss * 1.0", "loss * torch.rand((), generator=self.rng.local('scale')).add(self.rng.rank)")],
            "step 1: two processes of 2 samples against one of 4",
        ),
    ],
    ids=["good", "a sum over samples", "a weight that differs between processes"],
)
def test_two_processes(tmp_path: Path, changes: list[tuple[str, str]], message: str) -> None:
    suite = suite_of(tmp_path, *changes, steps=1)
    with suite.world():
        if not message:
            suite.test_two_processes_give_the_gradients_of_one(tmp_path)
            return
        with pytest.raises(AssertionError, match=message):
            suite.test_two_processes_give_the_gradients_of_one(tmp_path)


def test_opting_out_needs_a_known_capability_and_a_reason() -> None:
    with pytest.raises(TypeError, match=r"names 'accumulatoin'; there are: learning \(on toy data"):
        type("Suite", (MethodPluginSuite,), {"unsupported": {"accumulatoin": "it just cannot do that"}})
    with pytest.raises(TypeError, match=r"unsupported\['resume'\] is 'no'; say in a few words why"):
        type("Suite", (MethodPluginSuite,), {"unsupported": {"resume": "no"}})


def test_a_check_is_not_redefined() -> None:
    with pytest.raises(TypeError, match="redefines test_equal_runs_are_equal: a check of the kit is not changed"):
        type("Suite", (MethodPluginSuite,), {"test_equal_runs_are_equal": lambda self: None})


def test_opted_out_checks_are_skipped_with_their_reason(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, unsupported={"resume": "its memory is not kept yet"})
    with pytest.raises(pytest.skip.Exception, match="mine does not support resume: its memory is not kept yet"):
        run_check(suite, "test_a_resumed_run_ends_like_one_that_was_never_interrupted", tmp_path)
