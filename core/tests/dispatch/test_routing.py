"""Calls go to the adapter of the family whose role they name."""

from __future__ import annotations

import inspect
from typing import Any, Protocol, runtime_checkable

import pytest
import torch

from fastvideo_core.contracts.adapter import DistillAdapter, HasRngGenerators, OnTrainStart
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.tracker import Tracker
from fastvideo_core.contracts.validator import SamplingWatch, ValidationRequest, WatchedValidator
from fastvideo_core.dispatch.routing import route, route_validator
from fastvideo_core.errors import ContractError


class Family:
    """Remembers every call."""

    def __init__(self, name: str) -> None:
        self.called_name = name
        self.calls: list[str] = []
        self.num_train_timesteps = 1000

    def prepare_batch(self, raw_batch, *, current_vsa_sparsity=0.0, latents_source="data", generator=None):
        return self.called_name

    def predict_noise(self, handle, noisy_latents, t, batch, *, conditional, attn_kind="dense"):
        self.calls.append(handle.name)
        return self.called_name

    def distance(self, t: float, of: RoleHandle) -> str:
        """A third party's own primitive, with its role elsewhere."""
        self.calls.append(of.name)
        return self.called_name

    @staticmethod
    def halved(t: float) -> float:
        return t / 2

    @property
    def length(self) -> int:
        return len(self.called_name)


class Drawing(Family):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.started = 0
        self._generator = torch.Generator()

    def on_train_start(self) -> None:
        self.started += 1

    def get_rng_generators(self) -> dict[str, torch.Generator]:
        return {"frames": self._generator}


class Poor:
    def prepare_batch(self, raw_batch, *, current_vsa_sparsity=0.0, latents_source="data", generator=None): ...


@runtime_checkable
class Distance(Protocol):
    def distance(self, t: float, of: RoleHandle) -> str: ...


STUDENT, TEACHER = RoleHandle("student", {}, family="one"), RoleHandle("teacher", {}, family="other")


def test_one_family_s_adapter_is_handed_through_as_it_is():
    adapter = Family("one")
    assert route({"one": adapter}, "one") is adapter


def test_each_call_goes_to_the_adapter_of_its_role_and_the_rest_to_the_recipe_s():
    one, other = Family("one"), Family("other")
    adapter = route({"other": other, "one": one}, "one")
    assert adapter.predict_noise(STUDENT, None, None, None, conditional=True) == "one"
    assert adapter.predict_noise(TEACHER, None, None, None, conditional=True) == "other"
    assert adapter.predict_noise(handle=TEACHER, noisy_latents=None, t=None, batch=None, conditional=True) == "other"
    assert adapter.distance(1.0, TEACHER) == "other"
    assert adapter.distance(1.0, of=STUDENT) == "one"
    assert (one.calls, other.calls) == (["student", "student"], ["teacher"] * 3)
    assert adapter.prepare_batch({}) == "one"
    assert (adapter.halved(4.0), adapter.length, adapter.num_train_timesteps) == (2.0, 3, 1000)


def test_protocols_see_the_same_members_as_in_the_recipe_s_adapter():
    adapter = route({"one": Family("one"), "other": Family("other")}, "one")
    assert isinstance(adapter, DistillAdapter)
    assert isinstance(adapter, Distance)
    assert not isinstance(adapter, OnTrainStart | HasRngGenerators)
    assert not isinstance(route({"one": Poor(), "other": Family("other")}, "one"), Distance)
    assert inspect.getattr_static(adapter, "distance") is vars(type(adapter))["distance"]
    assert inspect.signature(adapter.predict_noise) == inspect.signature(Family("one").predict_noise)
    assert inspect.signature(adapter.halved) == inspect.signature(Family.halved)


@pytest.mark.parametrize("family", ["one", "other"])
def test_every_family_is_started_and_gives_its_generators(family):
    one, other = Family("one"), Drawing("other")
    adapter = route({"one": one, "other": other}, family)
    assert isinstance(adapter, OnTrainStart)
    assert isinstance(adapter, HasRngGenerators)
    adapter.on_train_start()
    assert other.started == 1
    assert adapter.get_rng_generators() == {"other/frames": other._generator}
    alone: Any = route({"other": other}, "other")
    assert set(alone.get_rng_generators()) == {"frames"}


def test_a_role_whose_family_has_no_such_call_is_named():
    adapter = route({"one": Family("one"), "other": Poor()}, "one")
    with pytest.raises(ContractError, match=r"roles.teacher.family: 'predict_noise' is called with role 'teacher'"):
        adapter.predict_noise(TEACHER, None, None, None, conditional=True)


class Validator:
    """Notes what it samples."""

    def __init__(self) -> None:
        self.watch: Any = None
        self.sampled: list[str] = []

    def set_tracker(self, tracker: Any) -> None:
        self.tracker = tracker

    def log_validation(self, step: int, request: ValidationRequest) -> None:
        self.sampled.append(request.sample_handle.name)


def test_a_role_is_sampled_by_its_own_family_s_validator(tmp_path):
    one, other, tracker = Validator(), Validator(), Tracker()
    routed = route_validator({"one": one, "other": other})
    assert isinstance(routed, WatchedValidator)
    routed.set_tracker(tracker)
    routed.watch = watch = SamplingWatch()
    for handle in (TEACHER, STUDENT):
        routed.log_validation(1, ValidationRequest(handle, tmp_path))
    assert (one.sampled, other.sampled) == (["student"], ["teacher"])
    assert one.tracker is other.tracker is tracker
    assert one.watch is other.watch is watch
    assert route_validator({"one": None, "other": None}) is None
    alone = route_validator({"one": one, "other": None})
    assert alone is not None
    alone.log_validation(2, ValidationRequest(TEACHER, tmp_path))
    assert one.sampled == ["student"]
