"""The conformance suite of callbacks: subclass it in a callback's own tests."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastvideo_core.callbacks.hooks import Callback
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.errors import FastVideoError
from fastvideo_core.registry import Kind
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_testing.compare import changed
from fastvideo_testing.hook_calls import Errors, Generators, HookWatch, Metrics, watched
from fastvideo_testing.hook_ranks import train_in_two_processes
from fastvideo_testing.options_read import options_read
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
        "options": "each of its options is read when it is made or trains with `config`",
        "ranks": "it can be in a run of several processes",
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

    def test_it_leaves_the_global_generators_alone(self, tmp_path: Path) -> None:
        watch = Generators()
        self._train_watched(tmp_path, watch)
        assert not watch.found, (
            f"{watch.found[0]}, which other code shares: with it a run draws other numbers than without; make a generator of "
            "your own (torch.Generator().manual_seed(...), random.Random(...), numpy.random.default_rng(...))"
        )

    def test_the_metrics_that_it_adds_are_numbers(self, tmp_path: Path) -> None:
        watch = Metrics()
        try:
            self._train_watched(tmp_path, watch)
        except Exception:  # what is logged may fail for what the watch has found
            if not watch.found:
                raise
        assert not watch.found, watch.found[0]

    def test_errors_in_its_hooks_are_heard_of(self, tmp_path: Path) -> None:
        watch = Errors(self._class())
        self._train_watched(tmp_path, watch)
        assert not watch.found, (
            f"{watch.found[0]}: `except Exception` takes what is wrong in its own code too, and the run goes on without it. "
            "Catch what you expect by its type, log it (logger.exception), or let it go: core names the callback and the hook"
        )

    @needs("options")
    def test_every_option_does_something(self, tmp_path: Path) -> None:
        with options_read(self.config_class()) as read:
            self._train(self._runtime(tmp_path), self.steps)
        unread = sorted(set(self.config_class().model_fields) - read)
        assert not unread, (
            f"nothing reads the option {unread[0]} of the {self.called()}: who sets it in run.yaml gets the same run as without; "
            "use it, or remove it. One that only counts under another `config` is tested by a suite with that"
        )

    def test_a_validation_leaves_the_networks_as_they_were(self, tmp_path: Path) -> None:
        runtime = self._runtime(tmp_path)
        hook, method = runtime.callbacks.hook, runtime.method
        hook.train_start(method=method, start_step=0)
        try:
            hook.validation_end(method=method, step=0)
        except FastVideoError as error:
            raise AssertionError(
                f"{error}: validation_end is called without validation_start where another callback's start fails; set what it "
                "reads in __init__"
            ) from error
        self._train(runtime, self.steps)
        before = {handle.name: _state(handle) for handle in method.bundle}
        hook.validation_start(method=method, step=self.steps)
        hook.validation_end(method=method, step=self.steps)
        for handle in method.bundle:
            tensors, flags = before[handle.name]
            after, now = _state(handle)
            moved = changed(tensors, after) or [name for name, flag in flags.items() if now[name] != flag]
            assert not moved, (
                f"after validation_start and validation_end {moved[0]} of {handle.name} is not as it was: what is changed for a "
                "validation is undone in validation_end, as training goes on with it"
            )

    @needs("ranks")
    def test_its_hooks_agree_in_two_processes(self, tmp_path: Path) -> None:
        run = self.run(tmp_path, train_batch_size=2, num_gpus=2)
        train_in_two_processes(tmp_path, run, self.file_arguments(), self.plugin)

    def test_its_state_can_be_stored(self, tmp_path: Path) -> None:
        runtime = self._runtime(tmp_path)
        self._train(runtime, self.steps, saves=False)
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

    @needs("resume")
    def test_a_resumed_run_logs_what_an_uninterrupted_one_does(self, tmp_path: Path) -> None:
        half, total = self.steps // 2, self.steps
        logs = []
        for name in ("one", "two"):
            with watched(self._class(), watch := Metrics()):
                runtime = self._runtime(tmp_path / name)
                self._train(runtime, total)
            logs.append((_logged(tmp_path / name), copy.deepcopy(self._callback(runtime).state_dict())))
        (one, state), (two, other) = logs
        difference = _difference(state, other, "state_dict()")
        assert not difference, (
            f"two equal runs in one process, one after the other, end with different states: {difference}; what a callback "
            "remembers belongs on `self`, from __init__ on, not on its class or module"
        )
        self._train(self._runtime(tmp_path / "resumed"), half)
        self._train(self._runtime(tmp_path / "resumed", resume_from_checkpoint="latest"), total)
        for place, value in _logged(tmp_path / "resumed").items():
            step, name = place
            its_own = name in watch.added or name.rpartition("/")[0] in watch.added
            if its_own and place in one and one[place] == two.get(place):  # what equal runs have alike, so no clock's
                assert value == one[place], (
                    f"{half} steps, a resume and {total - half} more steps log {name} as {value} in step {step}, and {total} "
                    f"steps at once as {one[place]}: state_dict must give all that later steps depend on, and train_start "
                    "must not begin anew what a resumed run goes on with"
                )

    # --- helpers --------------------------------------------------------------------------------------------------------

    def _runtime(self, folder: Path, **training: Any) -> DistillRuntime:
        folder.mkdir(parents=True, exist_ok=True)
        return build_run(folder, self.run(folder, **training))

    def _class(self) -> type:
        registry, plugin = self.found()
        found = registry.resolve(plugin, "impl")
        assert isinstance(found, type)
        return found

    def _train_watched(self, folder: Path, watch: HookWatch) -> None:
        with watched(self._class(), watch):
            self._train(self._runtime(folder), self.steps)

    def _callback(self, runtime: DistillRuntime) -> Callback:
        return runtime.callbacks.callbacks[self.plugin]

    def _train(self, runtime: DistillRuntime, steps: int, *, saves: bool = True) -> dict[str, Tensor]:
        DistillTrainer(runtime.training_args, config={}).run(
            runtime.method,
            runtime.dataloader,
            steps,
            runtime.start_step,
            checkpoint_manager=runtime.checkpoint_manager if saves else None,
            callbacks=runtime.callbacks,
        )
        return copy.deepcopy(weights(runtime.method.bundle["student"]))


def _state(handle: RoleHandle) -> tuple[dict[str, Tensor], dict[str, bool]]:
    """Weights and buffers; and which module is in training mode and which parameter trains."""
    flags = {name: p.requires_grad for name, p in handle.named_parameters()}
    for name, network in handle.modules.items():
        flags |= {f"{name}.{part}.training".replace("..", "."): m.training for part, m in network.named_modules()}
    return weights(handle), flags


def _logged(folder: Path) -> dict[tuple[int, str], Any]:
    """What a run's metrics.jsonl has, by step and name."""
    lines = map(json.loads, (folder / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {(line["step"], name): value for line in lines for name, value in line.items()}


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
