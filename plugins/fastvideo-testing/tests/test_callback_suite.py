"""The suite for callbacks passes a good one, and for each of its checks there is a wrong callback that it catches."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.errors import FastVideoError
from fastvideo_testing import CallbackPluginSuite

GOOD = """\
import torch
from pydantic import Field
from fastvideo_core import Callback, PluginConfig, hookimpl, register_callback


class Config(PluginConfig):
    every: int = Field(1, ge=1, description="Count every so many steps")


@register_callback("mine", config=Config)
class Mine(Callback):
    def __init__(self, config):
        super().__init__(config)
        self.steps = 0

    @hookimpl
    def step_end(self, method, step, metrics):
        if step % self.config.every == 0:
            self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
"""


def suite_of(folder: Path, *changes: tuple[str, str], **attributes: Any) -> CallbackPluginSuite:
    source = GOOD
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new)
    file = folder / "mine.py"
    file.write_text(source)
    return type("Suite", (CallbackPluginSuite,), {"plugin": "mine", "plugin_file": file, **attributes})()


def run_check(suite: CallbackPluginSuite, check: str, folder: Path) -> None:
    function = getattr(suite, check)
    with suite.world():
        function(*([folder] if "tmp_path" in inspect.signature(function).parameters else []))


CHECKS = [name for name in dir(CallbackPluginSuite) if name.startswith("test_") and "torch" not in name]
"""All but the one for installed packages, test_installed_plugins.py."""


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_callback_passes(tmp_path: Path, check: str) -> None:
    run_check(suite_of(tmp_path), check, tmp_path)


COUNT = "            self.steps += 1\n"

NETWORK = "method.bundle['student'].modules['transformer']"

WRONG = [
    (
        "test_it_is_healthy_in_the_list_of_plug_ins",
        [("config=Config", 'config="absent_module:x"')],
        "shows it as BROKEN",
    ),
    (
        "test_every_option_says_what_it_means",
        [(', description="Count every so many steps"', "")],
        "without a meaning: every",
    ),
    (
        "test_the_config_survives_being_written_and_read",
        [("    every:", "    tags: frozenset[str] = frozenset({'a'})\n    every:")],
        "Config does not survive the run.yaml",
    ),
    (
        "test_an_unknown_option_is_refused_by_name",
        [("    every:", "    model_config = {'extra': 'ignore'}\n    every:")],
        "Config accepts the unknown option",
    ),
    (
        "test_it_is_built_from_its_config_and_its_hooks_exist",
        [("def step_end", "def step_ends")],
        "unknown hook 'step_ends'",
    ),
    (
        "test_it_is_built_from_its_config_and_its_hooks_exist",
        [("(Callback):", "(Callback):\n    order = 0.5\n")],
        "`order` is 0.5",
    ),
    (
        "test_a_run_with_it_trains",
        [
            (
                "    def state_dict",
                "    @hookimpl\n    def stop_requested(self, step):\n        return step == 2\n\n    def state_dict",
            )
        ],
        "the run ended at step 2 of 4; configure the suite so that it goes on",
    ),
    (
        "test_a_run_with_it_trains",
        [(COUNT, "            1 / 0\n")],
        "callback 'mine' failed in its hook 'step_end': ZeroDivisionError",
    ),
    (
        "test_training_with_it_gives_the_same_weights",
        [(COUNT, COUNT + "            next(method.bundle['student'].named_parameters())[1].data.mul_(0.99)\n")],
        "training with the callback 'mine' ends with other weights, first transformer",
    ),
    (
        "test_it_leaves_the_global_generators_alone",
        [(COUNT, COUNT + "            import random; random.random()\n")],
        "step_end moves Python's module random, which other code shares",
    ),
    (
        "test_the_metrics_that_it_adds_are_numbers",
        [(COUNT, COUNT + "            metrics['mine'] = torch.ones(()) / 0\n")],
        "step_end adds the metric 'mine', which is inf",
    ),
    (
        "test_errors_in_its_hooks_are_heard_of",
        [(COUNT, COUNT + "            try: metrics.missing\n            except Exception: pass\n")],
        r"step_end hides AttributeError: .*mine.py:\d+\): `except Exception` takes",
    ),
    (
        "test_every_option_does_something",
        [("self.config.every", "1")],
        "nothing reads the option every of the callback 'mine'",
    ),
    (
        "test_a_validation_leaves_the_networks_as_they_were",
        [
            (
                "    @hookimpl",
                f"    @hookimpl\n    def validation_start(self, method): {NETWORK}.eval()\n\n    @hookimpl",
            )
        ],
        "after validation_start and validation_end transformer.training of student is not as it was",
    ),
    (
        "test_its_hooks_agree_in_two_processes",
        [(COUNT, COUNT + "            if torch.distributed.get_rank() == 0: torch.distributed.barrier()\n")],
        "step_end of step 1 calls the collective barrier on process 0 and not on the other",
    ),
    (
        "test_a_resumed_run_logs_what_an_uninterrupted_one_does",
        [
            (COUNT, COUNT + "            metrics['mine'] = float(self.steps)\n"),
            ('return {"steps": self.steps}', "return {}"),
            ('self.steps = state["steps"]', "pass"),
        ],
        "2 steps, a resume and 2 more steps log mine as 1.0 in step 3, and 4 steps at once as 3.0",
    ),
    (
        "test_its_state_can_be_stored",
        [
            ('{"steps": self.steps}', '{"steps": {self.steps}}'),
            ("    def load_state_dict", "    def load(self, state): ...\n\n    def load_state_dict"),
        ],
        r"state_dict\(\)\['steps'\] is a set; a checkpoint keeps|TypeError|set",
    ),
    (
        "test_its_state_survives_a_resume",
        [('        self.steps = state["steps"]', "        pass")],
        r"2 steps, a resume and 2 more steps .*: state_dict\(\)\['steps'\] is 2 instead of 4; load_state_dict must take back",
    ),
]


@pytest.mark.parametrize(
    ("check", "changes", "message"), WRONG, ids=[f"{n}-{case[0][5:40]}" for n, case in enumerate(WRONG)]
)
def test_a_wrong_callback_is_caught(tmp_path: Path, check: str, changes: list[tuple[str, str]], message: str) -> None:
    with pytest.raises((AssertionError, FastVideoError, TypeError), match=message):
        run_check(suite_of(tmp_path, *changes), check, tmp_path)


def test_every_check_has_a_wrong_callback_that_it_catches() -> None:
    assert set(CHECKS) == {case[0] for case in WRONG}


ALLOWED = [
    (
        "test_errors_in_its_hooks_are_heard_of",
        [(COUNT, COUNT + "            try: metrics['absent']\n            except KeyError: pass\n")],
    ),
    (
        "test_errors_in_its_hooks_are_heard_of",
        [(COUNT, COUNT + "            try: metrics.absent\n            except Exception as error: print(error)\n")],
    ),
    ("test_every_option_does_something", [("self.config.every", "self.config.model_dump()['every']")]),
    (
        "test_a_resumed_run_logs_what_an_uninterrupted_one_does",
        [(COUNT, COUNT + "            import time\n            metrics['mine'] = time.perf_counter()\n")],
    ),
    (
        "test_a_resumed_run_logs_what_an_uninterrupted_one_does",
        [
            (COUNT, COUNT + "            if self.warm: metrics['mine'] = 1.0\n            self.warm = True\n"),
            ("self.steps = 0", "self.steps, self.warm = 0, False"),
        ],
    ),
    (
        "test_its_hooks_agree_in_two_processes",
        [(COUNT, COUNT + "            if torch.distributed.get_rank() == 0: metrics['mine'] = 1.0\n")],
    ),
]


@pytest.mark.parametrize(("check", "changes"), ALLOWED, ids=[f"{n}-{case[0][5:40]}" for n, case in enumerate(ALLOWED)])
def test_what_the_contract_allows_passes(tmp_path: Path, check: str, changes: list[tuple[str, str]]) -> None:
    run_check(suite_of(tmp_path, *changes), check, tmp_path)
