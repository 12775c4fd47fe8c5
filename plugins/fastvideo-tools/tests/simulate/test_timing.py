"""Times of collectives and passes, in closed form, and costs in another shape."""

from __future__ import annotations

import pytest

from fastvideo_tools.simulate.hardware import Hardware
from fastvideo_tools.simulate.iterate import BACKWARD, CLIP, FORWARD, OPTIMIZER
from fastvideo_tools.simulate.meter import Cost, Part, Sent
from fastvideo_tools.simulate.timing import Shape, seconds_of, shaped, times

MACHINE = Hardware("mine", 100, 80, 4, 400, 20, 50, 0.5, 0.5, 10, 20, 5)
NODE, MANY = tuple(range(8)), tuple(range(512))
GB = 1e9
PART = Part("student", BACKWARD)


def cost(flops: float, sent: dict[Sent, tuple[float, float]], operators: float = 0) -> Cost:
    found = Cost(operators=operators)
    found.flops["linear"] = flops
    for key, entry in sent.items():
        found.sent[key][:] = entry
    return found


def test_a_ring_inside_a_node_sends_all_but_its_own_share() -> None:
    seconds = seconds_of(Sent("all-gather", NODE), 3, 8 * GB, Shape(64, 8, 8), MACHINE)
    assert seconds == pytest.approx(7 * GB / (0.5 * 400 * GB) + 3 * 20e-6)


def test_every_byte_enters_a_node_once_through_all_its_nics() -> None:
    seconds = seconds_of(Sent("reduce-scatter", MANY), 1, 64 * GB, Shape(1, 512, 8), MACHINE)
    assert seconds == pytest.approx(63 * GB / (0.5 * 8 * 20 * GB) + 20e-6 + 63 * 5e-6)


def test_replicas_add_up_through_one_nic_there_and_back() -> None:
    ranks = tuple(range(0, 512, 8))
    seconds = seconds_of(Sent("all-reduce", ranks), 1, 64 * GB, Shape(64, 8, 8), MACHINE)
    assert seconds == pytest.approx(2 * 63 * GB / (0.5 * 20 * GB) + 20e-6 + 2 * 63 * 5e-6)


def test_a_group_of_one_sends_nothing() -> None:
    assert seconds_of(Sent("all-gather", (0,)), 5, GB, Shape(8, 1, 8), MACHINE) == 0


def test_what_is_sent_hides_behind_computing_but_for_its_edge() -> None:
    shape, gather = Shape(1, 8, 8), Sent("all-gather", NODE)
    part = {Part("student", FORWARD): cost(100e12, {gather: (10, 80 * GB)})}
    found = times(part, shape, MACHINE)
    sending = 70 / 200 + 10 * 20e-6
    assert found.compute == pytest.approx(2)
    assert found.sending == pytest.approx(sending)
    assert found.overlapped == pytest.approx(2 + sending / 10)
    assert found.apart == pytest.approx(2 + sending)


def test_a_pass_that_sends_longer_than_it_computes_takes_as_long_as_that() -> None:
    part = {Part("student", BACKWARD): cost(1e12, {Sent("all-gather", NODE): (10, 8000 * GB)})}
    found = times(part, Shape(1, 8, 8), MACHINE)
    assert found.overlapped == pytest.approx(found.sending)


def test_many_small_operators_take_their_own_time() -> None:
    assert times({Part("student", FORWARD): cost(1e6, {}, 1000)}, Shape(1, 1, 1), MACHINE).compute == pytest.approx(
        0.01
    )


def test_what_waits_on_the_host_is_copied_meanwhile() -> None:
    part = Part("teacher", FORWARD)
    found = times({part: cost(100e12, {})}, Shape(1, 1, 1), MACHINE, {part: 100 * GB})
    assert found.overlapped == pytest.approx(4)
    assert found.apart == pytest.approx(6)


def test_in_more_replicas_gradients_are_added_up_and_back_again() -> None:
    one, many = Shape(1, 8, 8), Shape(64, 8, 8)
    gathered, scattered = Sent("all-gather", NODE), Sent("reduce-scatter", NODE)
    before = cost(1e12, {gathered: (4, 2 * GB), scattered: (2, 4 * GB), Sent("all-reduce", NODE): (1, 8)})
    after = shaped(PART, before, one, many)
    assert {(key.kind, len(key.ranks)): entry for key, entry in after.sent.items()} == {
        ("all-gather", 8): [4, 2 * GB],
        ("reduce-scatter", 8): [2, 4 * GB],
        ("all-reduce", 64): [2, GB / 2],
        ("all-reduce", 8): [1, 8],
    }
    flag = shaped(Part("", CLIP), before, one, many)
    assert flag.sent[Sent("all-reduce", MANY)] == [1, 8]
    assert dict(shaped(PART, after, many, one).sent) == dict(before.sent)
    assert shaped(PART, before, one, one, batch=3).flops == {"linear": 3e12}


def test_one_replica_over_all_gathers_over_all() -> None:
    before = cost(1e12, {Sent("all-gather", NODE): (4, 2 * GB), Sent("reduce-scatter", NODE): (2, 4 * GB)})
    after = shaped(PART, before, Shape(1, 8, 8), Shape(1, 512, 8))
    assert {(key.kind, len(key.ranks)) for key in after.sent} == {("all-gather", 512), ("reduce-scatter", 512)}


def test_for_tokens_that_are_exchanged_attention_waits() -> None:
    exchange = Sent("all-to-all", NODE, tokens=True)
    found = times({Part("student", FORWARD): cost(100e12, {exchange: (10, 80 * GB)})}, Shape(1, 8, 8), MACHINE)
    assert found.overlapped == found.apart == pytest.approx(2 + 70 / 200 + 10 * 20e-6)


def test_what_a_process_exchanges_with_other_nodes_goes_through_its_own_nic() -> None:
    ranks = tuple(range(16))
    seconds = seconds_of(Sent("all-to-all", ranks, tokens=True), 1, 16 * GB, Shape(1, 16, 8), MACHINE)
    assert seconds == pytest.approx(8 * GB / (0.5 * 20 * GB) + 20e-6 + 5e-6)


def test_in_another_shape_the_same_processes_share_tokens() -> None:
    """Also where just these share the weights, which others do then."""
    tokens, weights = Sent("all-gather", NODE, tokens=True), Sent("all-gather", NODE)
    before = cost(1e12, {tokens: (1, GB), weights: (4, 2 * GB)})
    after = shaped(PART, before, Shape(1, 8, 8), Shape(1, 512, 8), batch=2)
    assert dict(after.sent) == {tokens: [1, 2 * GB], Sent("all-gather", MANY): [4, 2 * GB]}


def test_an_optimizer_takes_the_time_of_its_bytes() -> None:
    update = Cost(moved=8e12, operators=1e6)
    assert times({Part("", OPTIMIZER): update}, Shape(1, 1, 1), MACHINE).compute == pytest.approx(2)
