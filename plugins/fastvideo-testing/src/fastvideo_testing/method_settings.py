"""Checks that a run's settings reach the method: those of optimizers, caption dropout, and the method's own options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic.fields import FieldInfo
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.validator import ValidationRequest
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.errors import UserError
from fastvideo_core.training.trainer import endless
from fastvideo_testing.compare import changed
from fastvideo_testing.method_suite import Gradients, MethodSuite, differs
from fastvideo_testing.recorded_calls import RecordedCalls
from fastvideo_testing.runs import build_run
from fastvideo_testing.steps import take_step, weights
from fastvideo_testing.suite import needs
from fastvideo_testing.tracker import InMemoryTracker
from fastvideo_testing.validations import Requests

_BY_CORE = "build_optimizer(handle, cfg) of fastvideo_core.optim does so"


class SettingsChecks(MethodSuite):
    """What is written in run.yaml has its effect, or is refused."""

    # --- optimizers -------------------------------------------------------------------------------------------------

    @needs("optimizer")
    def test_optimizers_have_the_settings_of_the_run(self, tmp_path: Path) -> None:
        ends = self._ends(tmp_path / "as-it-is")
        for name, value in (
            ("learning_rate", 2e-3),
            ("betas", [0.5, 0.6]),
            ("weight_decay", 1.0),
            ("adam_epsilon", 1.0),
            ("optimizer", "muon"),
        ):
            try:
                others = self._ends(tmp_path / name, **{name: value})
            except UserError:
                continue
            for role in self.trainable:
                assert changed(ends[role], others[role]), (
                    f"`training.{name}: {value}` changes nothing in what becomes of {role}: give its optimizer the run's "
                    f"settings, as {_BY_CORE}"
                )

    @needs("optimizer")
    def test_roles_may_have_settings_of_their_own(self, tmp_path: Path) -> None:
        for role in self.trainable:
            run = self.run(tmp_path)
            run["roles"][role] |= {"learning_rate": 0.0, "max_grad_norm": 0.125}
            try:
                runtime = build_run(tmp_path, run)
            except UserError:
                continue
            method = runtime.method
            before = weights(method.bundle[role])
            list(self.records(runtime))
            assert not changed(before, weights(method.bundle[role])), (
                f"`roles.{role}.learning_rate: 0` does not hold {role} still: give its optimizer the role's own settings, as "
                f"{_BY_CORE}"
            )
            for optimizer in method.bundle[role].optimizers.values():
                assert method.max_grad_norm(optimizer) == 0.125, (
                    f"`roles.{role}.max_grad_norm` does not clip {role}'s gradients: max_grad_norm(optimizer) gives "
                    f"{method.max_grad_norm(optimizer)}"
                )

    @needs("optimizer")
    def test_gradients_are_clipped_as_the_run_says(self, tmp_path: Path) -> None:
        method = self.runtime(tmp_path, max_grad_norm=0.25).method
        for role in self.trainable:
            for optimizer in method.bundle[role].optimizers.values():
                found = method.max_grad_norm(optimizer)
                assert found == 0.25, (
                    f"`training.max_grad_norm: 0.25` does not clip the gradients of {role}: max_grad_norm(optimizer) gives "
                    f"{found}; leave it as it is, or ask super()"
                )

    @needs("optimizer")
    def test_learning_rates_follow_the_schedule(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path, lr_scheduler="linear", min_lr_ratio=0.0)
        method, batches = runtime.method, endless(runtime.dataloader)
        first = _rates(runtime, self.trainable)
        advice = (
            "write build_lr_scheduler(optimizer, cfg, role, num_updates=...) into handle.lr_schedulers, where num_updates is how "
            "often the role is updated in the whole run, and let optimizers_schedulers_step step it once with its optimizer"
        )
        method.on_train_start()
        for step in range(1, self.steps + 1):
            due = {handle.name for handle in method.due_roles(step)}
            now = _rates(runtime, self.trainable)
            for (role, name), rate in now.items():
                assert rate > 0 or role not in due, (
                    f"with `lr_scheduler: linear` the learning rate of {role} is 0 in step {step} of {self.steps} already, in "
                    f"which it is updated ({name}): {advice}"
                )
            take_step(method, [next(batches)], step)
        for (role, name), rate in _rates(runtime, self.trainable).items():
            assert rate < 0.4 * first[role, name], (
                f"with `lr_scheduler: linear` the learning rate of {role} goes from {first[role, name]:.3g} to {rate:.3g} in the "
                f"whole run, not to 0 ({name}): {advice}"
            )

    # --- roles ------------------------------------------------------------------------------------------------------

    def test_roles_that_are_not_as_it_needs_them_are_refused(self, tmp_path: Path) -> None:
        for role, settings in self.run(tmp_path)["roles"].items():
            run, wanted = self.run(tmp_path), settings["trainable"]
            run["roles"][role]["trainable"] = not wanted
            what = f"with `roles.{role}.trainable: {str(not wanted).lower()}`"
            fix = "refuse it in the config's check_run, with the key and what it must be"
            try:
                runtime = build_run(tmp_path, run)
            except UserError as error:
                said = str(error)
            except Exception as error:
                raise AssertionError(f"{what} a run ends in {type(error).__name__}: {error}; {fix}") from error
            else:
                said = ""
            if said:
                assert role in said, f"{what} the run is refused, but the message does not name {role}:\n{said}"
                continue
            before = weights(runtime.method.bundle[role])
            try:
                list(self.records(runtime))
            except Exception as error:
                raise AssertionError(f"{what} training ends in {type(error).__name__}: {error}; {fix}") from error
            trained = bool(changed(before, weights(runtime.method.bundle[role])))
            assert trained is not wanted, (
                f"{what} a run trains all the same, and {role} {'is trained' if trained else 'never is'}; {fix}"
            )

    # --- captions ---------------------------------------------------------------------------------------------------

    @needs("dropout")
    def test_captions_are_dropped_as_the_run_says(self, tmp_path: Path) -> None:
        kept = self._gradients_of(self.still(tmp_path / "kept", training_cfg_rate=0.0))
        try:
            dropped = self._gradients_of(self.still(tmp_path / "dropped", training_cfg_rate=1.0))
        except UserError:
            return
        assert _any_differs(kept, dropped), (
            "`training.training_cfg_rate: 1` changes nothing, though it drops every caption: take the batch from "
            "self.prepare_batch(raw_batch), not from the adapter, or refuse the option in check_run"
        )

    # --- options ----------------------------------------------------------------------------------------------------

    @needs("options")
    def test_every_option_changes_something(self, tmp_path: Path) -> None:
        options = self.config_class().model_fields
        contexts = [dict(self.config), *self._contexts(options)]
        trials: dict[str, Any] = {}

        def outcome(config: Mapping[str, Any]) -> Any:
            """What a run with these options does; None where it is refused."""
            key = repr(sorted(config.items(), key=str))
            if key not in trials:
                folder = tmp_path / str(len(trials))
                trials[key] = self._outcome(folder, config)
            return trials[key]

        for name, field in options.items():
            if name == "attn_kind":  # has a check of its own
                continue
            others = list(
                _alternatives(field, dict(self.config).get(name, field.get_default(call_default_factory=True)))
            )
            seen = not others or any(
                self._counts(outcome(context), outcome({**context, name: value}))
                for context in contexts
                for value in others
            )
            shown = ", ".join(map(str, others))
            assert seen, (
                f"the option {name} does nothing: in {self.steps} steps the run is the same with {shown}. Read it "
                "(cfg.section(...)), refuse it where it has no meaning (check_run), or remove it; a guidance scale without "
                "effect may also mean that both halves of guidance are the same: is conditional=False passed?"
            )

    def test_a_guidance_scale_of_1_is_no_guidance(self, tmp_path: Path) -> None:
        names = [name for name in self.config_class().model_fields if name.endswith("guidance_scale")]
        for name in names:
            config = {**self.config, name: 1.0}
            try:
                expected = self._gradients_of(self.still(tmp_path / name, self.section(config)))
            except UserError:
                continue
            other = self.still(tmp_path / f"{name}-other", self.section(config))
            found = self._gradients_of(other, _other_negative)
            assert not _any_differs(expected, found), (
                f"with `{name}: 1` the negative conditioning still counts: guidance is u + w (c - u), which is c alone at w = 1, "
                "in every method and sampler alike; take predict_x0_guided or predict_noise_guided"
            )

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _ends(self, folder: Path, **training: Any) -> Gradients:
        runtime = self.runtime(folder, **training)
        list(self.records(runtime))
        return {handle.name: weights(handle) for handle in runtime.method.bundle}

    def _gradients_of(self, runtime: DistillRuntime, change: Any = None) -> list[Gradients]:
        return [record.gradients for record, _ in self.recorded(runtime, change)]

    def _contexts(self, options: Mapping[str, FieldInfo]) -> Iterator[dict[str, Any]]:
        """The suite's options with one of them otherwise: some options count only beside others."""
        for name, field in options.items():
            if name == "attn_kind":
                continue
            default = dict(self.config).get(name, field.get_default(call_default_factory=True))
            for value in _alternatives(field, default):
                yield {**self.config, name: value}

    @staticmethod
    def _counts(before: Any, after: Any) -> bool:
        """Whether two outcomes tell an option's effect: another run, or one that is refused for it."""
        if before is None:
            return False
        return after is None or before != after

    def _outcome(self, folder: Path, config: Mapping[str, Any]) -> Any:
        try:
            runtime = self.runtime(folder, self.section(config))
            method = runtime.method
        except (UserError, ValueError):
            return None
        tracker, requests = InMemoryTracker(), Requests()
        method.validator = requests
        method.set_tracker(tracker)
        recorded, said = RecordedCalls.of(method), list[Any]()
        batches = endless(runtime.dataloader)
        method.on_train_start()
        for step in range(1, self.steps + 1):
            record = take_step(method, [next(batches)], step)
            said += [
                {name: _number(value) for name, value in item.items()} for item in (*record.losses, *record.metrics)
            ]
            said.append([str(call) for call in recorded.calls])
            said.append({role: [_number(g) for g in found.values()] for role, found in record.gradients.items()})
            said.append([handle.name for handle in method.due_roles(step)])
            recorded.clear()
            method.log_validation(step)
        said.append([(step, _told(request)) for step, request in requests.made])
        said += [
            tracker.steps,
            {
                handle.name: _number(torch.cat([t.flatten().double() for t in weights(handle).values()]))
                for handle in method.bundle
            },
        ]
        schedule = type(method).student_schedule(runtime.cfg.method_config, method.adapter.shift_and_clamp_timestep)
        optimizers = [optimizer for handle in method.bundle for optimizer in handle.optimizers.values()]
        said += [schedule, method.learning_rates(), [method.max_grad_norm(optimizer) for optimizer in optimizers]]
        said += [type(method).latents_source(runtime.cfg), repr(method.checkpoint_state())]
        return repr(said).replace(str(folder), "")


def _told(request: ValidationRequest) -> list[Any]:
    handle = request.sample_handle.name
    return [handle, *(getattr(request, part.name) for part in fields(request) if part.name != "sample_handle")]


def _number(value: Any) -> Any:
    return [value.double().sum().item(), value.double().square().sum().item()] if isinstance(value, Tensor) else value


def _alternatives(field: FieldInfo, default: Any) -> Iterable[Any]:
    """Other values of an option, of which one should make a difference; none for a kind that is not known."""
    values: list[Any] = []
    kinds = [field.annotation, *get_args(field.annotation)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            values += [value for value in get_args(kind) if value != default]
        elif kind is bool:
            values += [value for value in (True, False) if value != default]
        elif kind is int:
            whole = default if isinstance(default, int) else 1
            values += [value for value in (1, whole + 1, 2, whole // 2) if value != default]
        elif kind is float:
            number = float(default) if isinstance(default, (int, float)) else 1.0
            values += [value for value in (2 * number + 0.5, number / 2, 0.5, 1.0) if value != default]
    fitting = []
    for value in values:
        with suppress(Exception):
            if value not in fitting and _fits(field, value):
                fitting.append(value)
    return fitting


def _fits(field: FieldInfo, value: Any) -> bool:
    for rule in field.metadata:
        low, high = getattr(rule, "ge", None), getattr(rule, "le", None)
        above, below = getattr(rule, "gt", None), getattr(rule, "lt", None)
        if (low is not None and value < low) or (high is not None and value > high):
            return False
        if (above is not None and value <= above) or (below is not None and value >= below):
            return False
    return True


def _rates(runtime: DistillRuntime, roles: Iterable[str]) -> dict[tuple[str, str], float]:
    """The learning rate of every optimizer of the roles, by role and name."""
    bundle = runtime.method.bundle
    return {
        (role, name): max(float(group["lr"]) for group in optimizer.param_groups)
        for role in roles
        for name, optimizer in bundle[role].optimizers.items()
    }


def _any_differs(first: list[Gradients], second: list[Gradients]) -> bool:
    return any(
        differs(gradients, other[role])
        for one, other in zip(first, second, strict=True)
        for role, gradients in one.items()
    )


def _other_negative(batch: TrainingBatch) -> TrainingBatch:
    if batch.negative_conditioning is None:
        return batch
    others = {name: tensor + 7.0 for name, tensor in batch.negative_conditioning.items()}
    return replace(batch, negative_conditioning=others, dropped_conditioning=batch.negative_conditioning)
