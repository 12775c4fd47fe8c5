"""Timesteps of an iteration lie in one range, on all ranks and in all rounds, and keep the method's distribution."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import NoiseRanges
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.noise_ranges import is_trained_at
from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.routing import route
from fastvideo_core.errors import ContractError

RANGES = {
    "one": ((0.0, 1000.0),),
    "two": ((0.0, 700.0), (700.0, 1000.0)),
    "three": ((0.0, 300.0), (300.0, 700.0), (700.0, 1000.0)),
    "upper": ((700.0, 1000.0),),
}
HANDLES = {name: RoleHandle(name, {}, family="toy") for name in RANGES}


class Adapter:
    num_train_timesteps = 1000

    def noise_ranges(self, handle: RoleHandle) -> Any:
        return RANGES[handle.name]

    def predict_noise(self, handle, noisy_latents, t, batch, *, conditional, attn_kind="dense"):
        return t


class Plain:
    num_train_timesteps = 1000

    def predict_noise(self, handle, noisy_latents, t, batch, *, conditional, attn_kind="dense"):
        return t


def uniform(size: int, generator: torch.Generator) -> Tensor:
    return 1000 * torch.rand(size, generator=generator)


def drawn(
    names: list[str], iterations: int, *, rank: int = 0, size: int = 8, rounds: int = 1, adapter: Any = None
) -> tuple[Tensor, RandomStreams]:
    """[iterations, rounds, size], and the streams that they came from."""
    method, handles = drawing(adapter or Adapter(), rank), [HANDLES[name] for name in names]
    t = [[draw(method, handles, uniform, size, step) for _ in range(rounds)] for step in range(1, iterations + 1)]
    return torch.stack([torch.stack(one) for one in t]), method.rng


def drawing(adapter: Any, rank: int = 0) -> Any:
    """What drawing takes of a method."""
    return SimpleNamespace(adapter=adapter, rng=RandomStreams(0, rank), _ranges_of_iterations={})


def draw(method: Any, handles: list[RoleHandle], distribution: Any, size: int, iteration: int) -> Tensor:
    return DistillMethod.draw_in_one_range(
        method, handles, distribution, size, iteration=iteration, stream="t", shared="range"
    )


@pytest.mark.parametrize("adapter", [Adapter(), Plain()])
def test_with_one_range_nothing_is_drawn_from_a_shared_stream(adapter):
    t, rng = drawn(["one", "one"], 5, adapter=adapter)
    assert list(rng.state_dict()) == ["local/t"]
    expected = RandomStreams(0).local("t")
    assert torch.equal(t, torch.stack([uniform(8, expected)[None] for _ in range(5)]))


def test_an_iteration_has_one_range_on_all_ranks_and_in_all_rounds_and_the_run_has_both():
    first, second = (drawn(["two"], 40, rank=rank, rounds=3)[0] >= 700 for rank in (0, 1))
    upper = first[:, 0, 0]
    assert torch.equal(first, upper[:, None, None].expand_as(first))
    assert torch.equal(first, second)
    assert 0 < int(upper.sum()) < 40
    assert not torch.equal(*(drawn(["two"], 40, rank=rank)[0] for rank in (0, 1)))


def test_all_roles_that_are_called_at_a_timestep_have_one_network_for_an_iteration():
    t, _ = drawn(["two", "one", "three"], 60)
    parts = (t >= 300).int() + (t >= 700).int()
    assert torch.equal(parts, parts[..., :1].expand_as(parts))
    assert set(parts.flatten().tolist()) == {0, 1, 2}


def test_two_timesteps_of_a_sample_lie_in_one_range_each_also_across_a_border():
    def intervals(size: int, generator: torch.Generator) -> Tensor:
        t = uniform(size, generator)
        return torch.stack([t, (t - 100).clamp(min=0)], dim=1)

    seen = set()
    for rank in (0, 1):
        method = drawing(Adapter(), rank)
        for step in range(1, 41):
            pairs = torch.cat([draw(method, [HANDLES["two"]], intervals, 4, step) for _ in range(2)])
            upper = pairs >= 700
            assert torch.equal(upper, upper[:1].expand_as(upper))
            seen.add((rank, step, *upper[0].tolist()))
    kinds = {kind[2:] for kind in seen}
    assert kinds == {(True, True), (True, False), (False, False)}
    assert len(seen) == 80
    assert {kind[1:] for kind in seen if kind[0] == 0} == {kind[1:] for kind in seen if kind[0] == 1}


def test_several_timesteps_of_a_sample_are_all_where_networks_are_trained():
    def intervals(size: int, generator: torch.Generator) -> Tensor:
        t = uniform(size, generator)
        return torch.stack([t, (t - 100).clamp(min=0)], dim=1)

    method = drawing(Adapter())
    pairs = torch.cat([draw(method, [HANDLES["upper"]], intervals, 4, step) for step in range(1, 20)])
    assert float(pairs.min()) >= 700


def test_timesteps_keep_the_distribution_of_the_method():
    t = drawn(["two"], 2000)[0].flatten()
    assert float((t >= 700).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(t.mean()) == pytest.approx(500, abs=15)
    below = t[t < 700]
    assert float(below.mean()) == pytest.approx(350, abs=10)


def test_a_role_of_which_one_network_is_trained_is_trained_in_its_range():
    t, _ = drawn(["upper", "two"], 20)
    assert float(t.min()) >= 700
    assert is_trained_at(Adapter(), HANDLES["upper"], 700.0)
    assert not is_trained_at(Adapter(), HANDLES["upper"], 699.0)
    assert is_trained_at(Plain(), HANDLES["upper"], 0.0)


def test_a_distribution_that_never_reaches_the_trained_network_is_refused():
    with pytest.raises(
        ContractError, match="none of 10000 drawn timesteps lies where the networks of 'upper' are trained"
    ):
        draw(drawing(Adapter()), [HANDLES["upper"]], lambda size, rng: uniform(size, rng) / 2, 4, iteration=1)


def call(adapter: Any, role: str, t: list[float]) -> Tensor:
    out: Tensor = adapter.predict_noise(HANDLES[role], None, torch.tensor(t), None, conditional=True)
    return out


def test_a_call_of_samples_on_both_sides_of_a_border_is_ended_with_words():
    adapter = route({"toy": Adapter()}, "toy", HANDLES.values())
    assert isinstance(adapter, NoiseRanges)
    assert call(adapter, "two", [700.0, 1000.0]).tolist() == [700.0, 1000.0]
    assert call(adapter, "one", [10.0, 1000.0]).tolist() == [10.0, 1000.0]
    text = r"roles.two: 'predict_noise' calls role 'two' at timesteps from 10 to 700 at once.*below and above 700"
    with pytest.raises(ContractError, match=text):
        call(adapter, "two", [10.0, 700.0])
    with pytest.raises(ContractError, match="draw_in_one_range"):
        adapter.predict_noise(handle=HANDLES["two"], noisy_latents=None, t=torch.tensor([1.0, 999.0]), batch=None,
                              conditional=True)  # fmt: skip


def test_families_with_and_without_ranges_run_together():
    student = RoleHandle("one", {}, family="plain")
    adapter = route({"plain": Plain(), "toy": Adapter()}, "plain", [student, HANDLES["two"]])
    assert adapter.noise_ranges(student) == ((0.0, 1000.0),)
    assert adapter.noise_ranges(HANDLES["two"]) == RANGES["two"]
    with pytest.raises(ContractError, match="calls role 'two'"):
        call(adapter, "two", [10.0, 900.0])


def test_one_family_of_single_networks_is_handed_through():
    adapter = Adapter()
    assert route({"toy": adapter}, "toy", [HANDLES["one"]]) is adapter
