"""Checks of a method's own options: each has an effect, and guidance means what it means everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.validator import ValidationRequest
from fastvideo_core.errors import UserError
from fastvideo_core.training.trainer import endless
from fastvideo_testing.method_suite import MethodSuite, any_differs
from fastvideo_testing.recorded_calls import RecordedCalls
from fastvideo_testing.steps import take_step, weights
from fastvideo_testing.suite import needs
from fastvideo_testing.tracker import InMemoryTracker
from fastvideo_testing.validations import Requests

_REFUSED = "refused"


class OptionChecks(MethodSuite):
    """What is written in `method_config` has its effect, or is refused."""

    @needs("options")
    def test_every_option_changes_something(self, tmp_path: Path) -> None:
        options = self.config_class().model_fields
        trials: dict[str, Any] = {}

        def outcome(config: Mapping[str, Any], family: Mapping[str, Any]) -> Any:
            """What a run with these options does, told once."""
            key = repr((sorted(config.items(), key=str), sorted(family.items())))
            if key not in trials:
                trials[key] = self._outcome(tmp_path / str(len(trials)), config, family)
            return trials[key]

        for name, field in options.items():
            if name == "attn_kind":  # has a check of its own
                continue
            others = list(_alternatives(field, self._value(name, field)))
            seen = not others or any(
                _tells(outcome(context, family), outcome({**context, name: value}, family))
                for context, family in self._contexts(options)
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
                expected = self.gradients_of(self.still(tmp_path / name, self.section(config)))
            except UserError:
                continue
            other = self.still(tmp_path / f"{name}-other", self.section(config))
            found = self.gradients_of(other, _other_negative)
            assert not any_differs(expected, found), (
                f"with `{name}: 1` the negative conditioning still counts: guidance is u + w (c - u), which is c alone at w = 1, "
                "in every method and sampler alike; take predict_x0_guided or predict_noise_guided"
            )

    def _contexts(self, options: Mapping[str, FieldInfo]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Options of the method and the family: the suite's, and those with one of them otherwise, beside which others count."""
        for family in (self.toy_config(), self.toy_config(sampler_kind="sde") if self.is_toy() else {}):
            yield dict(self.config), family
            for name, field in options.items():
                if name != "attn_kind":
                    for value in _alternatives(field, self._value(name, field)):
                        yield {**self.config, name: value}, family

    def _value(self, name: str, field: FieldInfo) -> Any:
        return dict(self.config).get(name, field.get_default(call_default_factory=True))

    def _outcome(self, folder: Path, config: Mapping[str, Any], family: Mapping[str, Any]) -> Any:
        """All that can be seen of a run; None where its options do not fit together, _REFUSED where they do not fit the run."""
        try:
            self.config_class().model_validate(dict(config))
        except ValidationError:
            return None
        try:
            runtime = self.runtime(folder, {**self.section(config), "pipeline_config": dict(family)})
        except UserError:
            return _REFUSED
        method = runtime.method
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


def _tells(before: Any, after: Any) -> bool:
    """Whether two outcomes tell an option's effect: another run, or one that is refused for it."""
    return before not in (None, _REFUSED) and after is not None and before != after


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
        elif get_origin(kind) is tuple and get_args(kind)[0] is float and default:
            values += [[*default, default[-1] / 2], list(default)[:-1]]
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


def _other_negative(batch: TrainingBatch) -> TrainingBatch:
    if batch.negative_conditioning is None:
        return batch
    others = {name: tensor + 7.0 for name, tensor in batch.negative_conditioning.items()}
    return replace(batch, negative_conditioning=others, dropped_conditioning=batch.negative_conditioning)
