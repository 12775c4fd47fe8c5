"""What the checks of methods stand on: runs of the method on the toy family, its steps, and comparisons of what comes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.registry import Kind, MethodPlugin
from fastvideo_core.training.trainer import DistillTrainer, endless
from fastvideo_testing.compare import assert_close, changed, loudest
from fastvideo_testing.recorded_calls import Change, RecordedCalls
from fastvideo_testing.runs import build_run
from fastvideo_testing.steps import StepRecord, take_step, weights
from fastvideo_testing.suite import PluginSuite
from fastvideo_testing.toy import ToyConfig

BATCH = 4
SHIFT = 3.0
TOY: Mapping[str, Any] = {"flow_shift": SHIFT, "padding": 1}
"""A shift that shows when it is applied twice, and padding that shows when loss weights are dropped."""

Gradients = Mapping[str, Mapping[str, Tensor]]


class MethodSuite(PluginSuite):
    """Base of `MethodPluginSuite`'s groups of checks; see there for the attributes."""

    kind: ClassVar[Kind] = "methods"
    capabilities: ClassVar[Mapping[str, str]] = {
        "learning": "on toy data with a perfect teacher the student's samples come nearer to the data",
        "accumulation": "several rounds give the gradients of one larger batch",
        "ranks": "several processes give the gradients of one",
        "resume": "a resumed run ends with the weights of one that was not interrupted",
        "weights": "what has loss weight 0 asks nothing of a trained network",
        "optimizer": "learning rate, its schedule and the other settings of optimizers are the run's",
        "dropout": "captions are dropped as often as training.training_cfg_rate says",
        "options": "every option of method_config changes a run, in the few steps that the suite takes",
    }

    family: ClassVar[str] = "toy"
    trainable: ClassVar[tuple[str, ...]] = ("student",)
    optional_roles: ClassVar[tuple[str, ...]] = ()
    training: ClassVar[Mapping[str, Any]] = {}
    pipeline_config: ClassVar[Mapping[str, Any]] = {}
    steps: ClassVar[int] = 4
    student: ClassVar[str] = "student"
    learning_steps: ClassVar[int] = 400

    # --- runs -----------------------------------------------------------------------------------------------------

    def section(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"method_config": dict(values)}

    def run(self, folder: Path, **training: Any) -> dict[str, Any]:
        _, plugin = self.found()
        assert isinstance(plugin.spec, MethodPlugin)
        roles = (*plugin.spec.roles, *self.optional_roles)
        unknown = [role for role in self.trainable if role not in roles]
        assert not unknown, f"`trainable` names {', '.join(unknown)}; the roles are {', '.join(roles)}"
        return {
            "recipe": {"family": self.family, "method": self.plugin},
            "roles": {role: {"path": f"toy/{role}", "trainable": role in self.trainable} for role in roles},
            "training": {
                "output_dir": str(folder / "out"),
                "max_train_steps": self.steps,
                "train_batch_size": BATCH,
                "learning_rate": 1e-3,
                **self.training,
                **training,
            },
            "pipeline_config": self.toy_config(),
            **self.section(self.config),
        }

    def is_toy(self) -> bool:
        """Whether the suite's family has the toy family's options."""
        registry, _ = self.found()
        return issubclass(registry.config_class(registry.get("models", self.family)), ToyConfig)

    def toy_config(self, **options: Any) -> dict[str, Any]:
        """The `pipeline_config` of the suite's runs, with other options of the toy family."""
        return {**(TOY if self.is_toy() else {}), **self.pipeline_config, **options}

    def runtime(self, folder: Path, changes: Mapping[str, Any] | None = None, **training: Any) -> DistillRuntime:
        """The method, built for a run, of which `changes` replace whole sections."""
        folder.mkdir(parents=True, exist_ok=True)
        return build_run(folder, {**self.run(folder, **training), **(changes or {})})

    # --- steps ----------------------------------------------------------------------------------------------------

    def records(self, runtime: DistillRuntime, steps: int | None = None) -> Iterator[StepRecord]:
        """The suite's steps, one after another."""
        method, batches = runtime.method, endless(runtime.dataloader)
        method.on_train_start()
        for step in range(1, (steps or self.steps) + 1):
            yield take_step(method, [next(batches)], step)

    def recorded(
        self, runtime: DistillRuntime, change: Change | None = None
    ) -> Iterator[tuple[StepRecord, RecordedCalls]]:
        """The suite's steps, each with what the method asked of its adapter in it."""
        recorded = RecordedCalls.of(runtime.method, change)
        for record in self.records(runtime):
            yield record, recorded
            recorded.clear()

    def gradients_of(self, runtime: DistillRuntime, change: Change | None = None) -> list[Gradients]:
        """Those of the suite's steps."""
        return [record.gradients for record, _ in self.recorded(runtime, change)]

    def still(self, folder: Path, changes: Mapping[str, Any] | None = None, **training: Any) -> DistillRuntime:
        """A run whose weights stay where they are, so that gradients of all its steps can be compared."""
        return self.runtime(folder, changes, **{"learning_rate": 0.0, **training})

    def train(self, runtime: DistillRuntime, steps: int) -> dict[str, dict[str, Tensor]]:
        """Trains with the real trainer, saves at the end, and returns all weights."""
        DistillTrainer(runtime.training_args, config={}).run(
            runtime.method,
            runtime.dataloader,
            steps,
            runtime.start_step,
            checkpoint_manager=runtime.checkpoint_manager,
            callbacks=runtime.callbacks,
        )
        return {handle.name: weights(handle) for handle in runtime.method.bundle}


def compare_ends(what: str, first: Gradients, second: Gradients) -> None:
    """Bitwise equal weights of all roles."""
    for role, before in first.items():
        moved = changed(before, second[role])
        assert not moved, f"{what}: weights of {role} differ, first {moved[0]}"


def compare_gradients(what: str, expected: Gradients, found: Gradients, advice: str) -> None:
    """Gradients of all roles that are equal but for rounding."""
    for role, gradients in expected.items():
        assert set(gradients) == set(found[role]), f"{what}: other parameters of {role} have gradients; {advice}"
        scale = loudest(gradients)
        for name, gradient in gradients.items():
            where = f"{what}: the gradient of {role}.{name}"
            assert_close(where, found[role][name], gradient, scale=scale, advice=advice)


def differs(first: Mapping[str, Tensor], second: Mapping[str, Tensor], rtol: float = 1e-6) -> bool:
    """Whether one of the tensors is off by more than `rtol` of the largest."""
    if set(first) != set(second):
        return True
    scale = max(loudest(first), loudest(second))
    return any(float((first[name] - second[name]).abs().max()) > rtol * scale for name in first if first[name].numel())


def any_differs(first: Sequence[Gradients], second: Sequence[Gradients]) -> bool:
    """Whether one of several steps gives other gradients."""
    return any(
        differs(gradients, other[role])
        for one, other in zip(first, second, strict=True)
        for role, gradients in one.items()
    )
