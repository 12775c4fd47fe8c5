"""The conformance suite of callbacks: subclass it in a callback's own tests."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastvideo_core.callbacks.base import Callback
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.registry import Kind
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_testing.compare import changed
from fastvideo_testing.runs import build_run
from fastvideo_testing.steps import weights
from fastvideo_testing.suite import PluginSuite, needs

_JSON = (bool, int, float, str, type(None))


class CallbackPluginSuite(PluginSuite):
    """What every callback must do, on the toy family and the toy method.

        class TestMyCallback(CallbackPluginSuite):
            plugin = "my-callback"

    Attributes:
        config: its section under `callbacks:`.
        steps: how many steps the checks train; enough for the callback to act, and not to end the run.
    """

    kind: ClassVar[Kind] = "callbacks"
    capabilities: ClassVar[Mapping[str, str]] = {
        "harmless": "training gives the same weights with and without it",
        "resume": "after a resume its state is that of a run that was not interrupted",
    }

    steps: ClassVar[int] = 4

    def section(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"callbacks": {self.plugin: dict(values)}}

    def run(self, folder: Path, **training: Any) -> dict[str, Any]:
        return {
            "recipe": {"family": "toy", "method": "toy"},
            "roles": {
                "student": {"path": "toy/student", "trainable": True},
                "teacher": {"path": "toy/teacher", "trainable": False},
            },
            "training": {
                "output_dir": str(folder / "out"),
                "max_train_steps": self.steps,
                "train_batch_size": 4,
                "learning_rate": 1e-3,
                **training,
            },
            **self.section(self.config),
        }

    # --- checks -------------------------------------------------------------------------------------------------------

    def test_it_is_built_from_its_config_and_its_hooks_exist(self, tmp_path: Path) -> None:
        runtime = self._runtime(tmp_path)  # the manager checks every hook's name and arguments
        callback = self._callback(runtime)
        assert isinstance(callback, Callback), f"impl is {type(callback).__name__}, which is no fastvideo_core.Callback"
        assert isinstance(callback.order, int), f"`order` is {callback.order!r}, not a whole number"

    def test_a_run_with_it_trains(self, tmp_path: Path) -> None:
        runtime = self._runtime(tmp_path)
        self._train(runtime, self.steps)
        lines = (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        last = json.loads(lines[-1])["step"] if lines else 0
        assert last == self.steps, (
            f"the run ended at step {last} of {self.steps}; configure the suite so that it goes on"
        )

    @needs("harmless")
    def test_training_with_it_gives_the_same_weights(self, tmp_path: Path) -> None:
        ends = []
        for name, callbacks in (("without", {}), ("with", self.section(self.config)["callbacks"])):
            folder = tmp_path / name
            folder.mkdir()
            runtime = build_run(folder, {**self.run(folder), "callbacks": callbacks})
            ends.append(self._train(runtime, self.steps))
        moved = changed(*ends)
        assert not moved, (
            f"training with the {self.called()} ends with other weights, first {moved[0]}: does it draw from torch's "
            "global generator, or change weights or gradients in place?"
        )

    def test_its_state_can_be_stored(self, tmp_path: Path) -> None:
        runtime = self._runtime(tmp_path)
        self._train(runtime, self.steps)
        bad = _unstorable(self._callback(runtime).state_dict(), "state_dict()")
        assert not bad, (
            f"{bad}; a checkpoint keeps nested dicts (with text keys) and lists of tensors, numbers, texts, booleans "
            "and None"
        )

    @needs("resume")
    def test_its_state_survives_a_resume(self, tmp_path: Path) -> None:
        half, total = self.steps // 2, self.steps
        straight = self._runtime(tmp_path / "straight")
        self._train(straight, total)
        folder = tmp_path / "resumed"
        self._train(self._runtime(folder), half)
        again = self._runtime(folder, resume_from_checkpoint="latest")
        self._train(again, total)
        expected, found = self._callback(straight).state_dict(), self._callback(again).state_dict()
        difference = _difference(expected, found, "state_dict()")
        assert not difference, (
            f"{half} steps, a resume and {total - half} more steps against {total} steps at once: {difference}; "
            "load_state_dict must take back all that state_dict gives"
        )

    # --- helpers --------------------------------------------------------------------------------------------------------

    def _runtime(self, folder: Path, **training: Any) -> DistillRuntime:
        folder.mkdir(parents=True, exist_ok=True)
        return build_run(folder, self.run(folder, **training))

    def _callback(self, runtime: DistillRuntime) -> Callback:
        return runtime.callbacks.callbacks[self.plugin]

    def _train(self, runtime: DistillRuntime, steps: int) -> dict[str, Tensor]:
        DistillTrainer(runtime.training_args, config={}).run(
            runtime.method,
            runtime.dataloader,
            steps,
            runtime.start_step,
            checkpoint_manager=runtime.checkpoint_manager,
            callbacks=runtime.callbacks,
        )
        return copy.deepcopy(weights(runtime.method.bundle["student"]))


def _unstorable(value: Any, where: str) -> str:
    """What in a state a checkpoint cannot keep; "" when all is well."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{where} has the key {key!r}, a {type(key).__name__}"
            if found := _unstorable(item, f"{where}[{key!r}]"):
                return found
        return ""
    if isinstance(value, list):
        return next((bad for index, item in enumerate(value) if (bad := _unstorable(item, f"{where}[{index}]"))), "")
    return "" if isinstance(value, (Tensor, *_JSON)) else f"{where} is a {type(value).__name__}"


def _difference(expected: Any, found: Any, where: str) -> str:
    """Where two states differ first; "" when they are equal."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if set(expected) != set(found):
            return f"{where} has the keys {sorted(found)} instead of {sorted(expected)}"
        return next((d for key in expected if (d := _difference(expected[key], found[key], f"{where}[{key!r}]"))), "")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return next((d for index, (a, b) in pairs if (d := _difference(a, b, f"{where}[{index}]"))), "")
    if isinstance(expected, Tensor) and isinstance(found, Tensor):
        return "" if torch.equal(expected, found) else f"{where} is another tensor"
    return "" if expected == found else f"{where} is {found!r} instead of {expected!r}"
