"""What a method says it needs of an adapter, and how adapters, or their classes, are held against it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partialmethod
from typing import Any, Generic, Literal, Protocol, TypeVar

import pytest
from torch import Tensor

from fastvideo_core import DistillMethod
from fastvideo_core.contracts.adapter import AddNoise, NumTrainTimesteps, PredictionTarget, PredictX0
from fastvideo_core.contracts.adapter_check import check_adapter, members_of
from fastvideo_core.errors import ContractError


class Wobble(Protocol):
    """A primitive that core has never heard of."""

    speed: float

    @property
    def phase(self) -> int: ...

    def wobble(self, x: Tensor, amount: float, /, *, seed: int = 0) -> Tensor: ...

    @staticmethod
    def unit() -> str: ...


class Needs(AddNoise, Wobble, Protocol): ...


class Good:
    phase = 3

    def __init__(self) -> None:
        self.speed = 1.0

    def prepare_batch(self, raw_batch, *, current_vsa_sparsity=0.0, latents_source="data", generator=None): ...

    def add_noise(self, clean_latents, noise, t): ...

    def wobble(self, anything, amount, *, seed=0): ...

    @staticmethod
    def unit(): ...


def refused(adapter: Any, *needed: type) -> str:
    with pytest.raises(ContractError) as caught:
        check_adapter(adapter, needed, method="m", family="f")
    return str(caught.value)


# --- what a Protocol has ----------------------------------------------------------------------------------------------


def test_members_are_methods_properties_and_attributes_of_a_protocol_and_its_bases():
    assert set(members_of(Needs)) == {"speed", "phase", "wobble", "unit", "add_noise"}
    assert members_of(NumTrainTimesteps).keys() == {"num_train_timesteps"}


def test_a_class_that_forgets_protocol_among_its_bases_is_told():
    class Forgot(AddNoise): ...

    assert "method 'm' names what it needs, but" in refused(Good(), Forgot)
    assert "Forgot is no Protocol" in refused(Good(), Forgot)
    assert "'add_noise' is no Protocol" in refused(Good(), "add_noise")  # type: ignore[arg-type]


class Able(Protocol):
    kind: Literal["fast", "exact"]
    supports_tangent: Literal[True]


@pytest.mark.parametrize("made", [lambda kind: kind, lambda kind: kind()])
def test_a_value_that_must_be_one_of_some_is_compared(made: Callable[[Any], Any]):
    class Exact(Good):
        kind = "exact"
        supports_tangent = True

    check_adapter(made(Exact), Able, method="m", family="f")
    Exact.supports_tangent = False
    found = refused(made(Exact), Able)
    assert "family 'f', Exact: 'supports_tangent' is False: method and family do not fit" in found
    assert "supports_tangent: Literal[True]" in found
    assert "'kind'" not in found


@pytest.mark.parametrize("annotation", [Literal[True], "Literal[True]"], ids=["evaluated", "text"])
def test_a_value_is_compared_whether_its_annotation_is_text_or_not(annotation: Any):
    """As in modules with and without `from __future__ import annotations`."""

    class Stated(Protocol): ...

    class Unable(Good):
        supports_tangent = False

    Stated.__annotations__ = {"supports_tangent": annotation}
    assert "'supports_tangent' is False: method and family do not fit" in refused(Unable, Stated)


# --- adapters and their classes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [Good, Good()])
def test_an_adapter_with_everything_passes_and_so_does_its_class(adapter: Any):
    check_adapter(adapter, [Needs, AddNoise], method="m", family="f")
    check_adapter(adapter, Needs, method="m", family="f")
    check_adapter(adapter, (), method="m", family="f")


class Nearly:
    def prepare_batch(self, raw_batch, *, current_vsa_sparsity=0.0, latents_source="data", generator=None): ...

    def add_noise(self, clean_latents, noise): ...

    def predict_x0(self, handle, noisy_latents, t, batch, *, conditional): ...


@pytest.mark.parametrize("adapter", [Nearly, Nearly()])
def test_all_that_is_missing_or_misshapen_is_reported_at_once(adapter: Any):
    text = refused(adapter, AddNoise, PredictX0, PredictionTarget, NumTrainTimesteps)
    assert f"({3 if adapter is Nearly else 4} problems)" in text
    assert "family 'f', Nearly: 'add_noise' cannot be called as the contract says" in text
    assert "'predict_x0' cannot be called as the contract says" in text
    assert "attn_kind" in text
    assert "lacks the primitive 'prediction_target', which method 'm' needs" in text
    assert "allowed: prediction_target(clean_latents, noise, t)" in text
    told = "lacks the primitive 'num_train_timesteps'" in text
    assert told is (adapter is not Nearly), "an instance may have what its class has not"
    assert not told or "allowed: num_train_timesteps -> int (a property)" in text


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("add_noise", lambda self, x0, noise, t: None, "clean_latents"),
        ("add_noise", lambda self, clean_latents, noise, t, extra: None, "extra"),
        ("add_noise", lambda self, *args, **kwargs: None, ""),
        ("add_noise", 3, "is a int, not a method"),
        ("add_noise", partialmethod(lambda self, more, clean_latents, noise, t: None, 3), ""),
        ("add_noise", classmethod(lambda cls, clean_latents, noise, t: None), ""),
        ("add_noise", staticmethod(lambda self, clean_latents, noise, t: None), "cannot be called"),
        ("add_noise", AddNoise.add_noise, "lacks the primitive 'add_noise'"),  # the Protocol's own empty body
        ("wobble", lambda self, x, amount, *, seed: None, "seed"),
        ("wobble", lambda self, x, amount: None, "seed"),
        ("phase", lambda self: 3, "is a method, not a value"),
        ("phase", property(lambda self: 3), ""),
        ("speed", lambda self: 3, ""),  # an attribute may hold a function
        ("unit", lambda self: "m", ""),
        ("unit", lambda self, of: "m", "of"),
    ],
)
def test_signatures_and_kinds_of_members(name: str, value: Any, said: str):
    kind = type("Other", (Good,), {name: value})
    if name == "speed":
        kind.__init__ = lambda self: None  # type: ignore[misc]
    for adapter in (kind, kind()):
        if said:
            text = refused(adapter, Needs)
            assert said in text
            assert f"'{name}'" in text
        else:
            check_adapter(adapter, Needs, method="m", family="f")


def test_a_method_that_only_an_instance_has_is_there_and_an_abstract_one_is_not():
    class Dynamic(Nearly):
        def __init__(self) -> None:
            self.add_noise = lambda clean_latents, noise, t: None

    check_adapter(Dynamic(), AddNoise, method="m", family="f")

    class Abstract(Nearly):
        @abstractmethod
        def add_noise(self, clean_latents, noise, t): ...

    assert "lacks the primitive 'add_noise'" in refused(Abstract, AddNoise)


# --- what a method needs --------------------------------------------------------------------------------------------------


Bound = TypeVar("Bound", bound=AddNoise)
Other = TypeVar("Other")
Free = TypeVar("Free")


class Base(DistillMethod[Bound]): ...


class Plain(Base): ...


class Narrow(Base[Needs]): ...


class Mixin(Generic[Other]): ...


class Two(Mixin[int], DistillMethod[Free], Generic[Other, Free]): ...


class OfTwo(Two[str, Wobble]): ...


class Below(OfTwo): ...


class Untold(DistillMethod): ...


@pytest.mark.parametrize(
    ("method", "needed"),
    [
        (Base, (AddNoise,)),
        (Plain, (AddNoise,)),
        (Narrow, (Needs,)),
        (Two, ()),
        (OfTwo, (Wobble,)),
        (Below, (Wobble,)),
        (Untold, ()),
    ],
)
def test_a_method_needs_what_it_is_generic_in_through_all_its_bases(
    method: type[DistillMethod], needed: tuple[type, ...]
):
    find: Callable[[Any], Any] = method.needs
    assert find(None) == needed
