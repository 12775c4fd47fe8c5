"""What the meter counts: FLOPs, what is alive at once, what is sent to whom."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn.functional import scaled_dot_product_attention

from fastvideo_core.errors import FastVideoError
from fastvideo_tools.simulate.meter import Meter, Part, Sent
from fastvideo_tools.simulate.ranks import fake_ranks

PART = Part("", "between")


def test_products_and_attention_are_counted_forward_and_backward() -> None:
    x, weight = torch.randn(6, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    q, k = (torch.randn(2, 3, length, 8, requires_grad=True) for length in (7, 9))
    with Meter() as meter:
        (x @ weight).sum().backward()
        scaled_dot_product_attention(q, k, k).sum().backward()
    product, scores = 2 * 6 * 4 * 5, 2 * 3 * 7 * 9
    assert meter.costs[PART].flops["linear"] == 3 * product
    assert meter.costs[PART].flops["attention"] == pytest.approx((2 + 5) * 2 * scores * 8)


def test_the_peak_is_of_what_lives_at_once_each_storage_once() -> None:
    known = torch.zeros(1000)
    with Meter([known]) as meter:
        first = torch.zeros(100)
        second = first.reshape(10, 10).t()
        del first, second
        third = known.reshape(10, 100)
        fourth = torch.zeros(50)
        assert meter.live == 200
    assert meter.peak == 400
    del third, fourth


def test_collectives_are_told_apart_by_their_group() -> None:
    with fake_ranks(16):
        mesh = init_device_mesh("cpu", (4, 4), mesh_dim_names=("replicate", "shard"))
        with Meter() as meter, meter.of(Part("student", "forward")):
            dist.all_gather_into_tensor(torch.zeros(40), torch.zeros(10), group=mesh["shard"].get_group())
            dist.reduce_scatter_tensor(torch.zeros(10), torch.zeros(40), group=mesh["shard"].get_group())
            dist.all_reduce(torch.zeros(10), group=mesh["replicate"].get_group())
            dist.all_reduce(torch.zeros(1))
    assert dict(meter.costs[Part("student", "forward")].sent) == {
        Sent("all-gather", (0, 1, 2, 3)): [1, 160],
        Sent("reduce-scatter", (0, 1, 2, 3)): [1, 160],
        Sent("all-reduce", (0, 4, 8, 12)): [1, 40],
        Sent("all-reduce", tuple(range(16))): [1, 4],
    }


def test_what_dtensor_makes_to_find_out_whole_shapes_is_not_counted() -> None:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_ranks(8):
        mesh = init_device_mesh("cpu", (8,))
        with fake:
            shares = [DTensor.from_local(torch.empty(7, 11), mesh, [Shard(0)], run_check=False) for _ in range(5)]
            meter = Meter([share.to_local() for share in shares], fake)
            with meter.watching_weights(), meter:
                torch._foreach_norm(shares, 2.0)
    assert meter.peak < 7 * 11 * 4
    assert meter.costs[PART].flops["rest"] < 7 * 11


def test_fake_ranks_leave_nothing_behind_and_want_a_process_of_their_own() -> None:
    with fake_ranks(4):
        assert dist.get_world_size() == 4
        with pytest.raises(FastVideoError, match="one of a group"), fake_ranks(2):
            pass
    assert not dist.is_initialized()
