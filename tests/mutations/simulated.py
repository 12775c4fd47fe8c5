"""Mistakes of simulated runs: what links carry, what other shapes send, what is alive at once."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

SIMULATE = "plugins/fastvideo-tools/src/fastvideo_tools/simulate"
TIMING = "plugins/fastvideo-tools/tests/simulate/test_timing.py"
METER = "plugins/fastvideo-tools/tests/simulate/test_meter.py"
SHAPES = f"{TIMING}::test_in_more_replicas_gradients_are_added_up_and_back_again"


def in_timing(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{SIMULATE}/timing.py", old, new, tests)


def in_meter(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{SIMULATE}/meter.py", old, new, tests)


SIMULATED: tuple[Mutation, ...] = (
    in_timing("replicas add up whole gradients", "size / after.shards", "size", SHAPES),
    in_timing(
        "a ring sends its own share too",
        "size * (members - 1) / members",
        "size",
        f"{TIMING}::test_a_ring_inside_a_node_sends_all_but_its_own_share",
    ),
    in_timing(
        "a node has one NIC for all",
        "(machine.network_gbs * nics)",
        "machine.network_gbs",
        f"{TIMING}::test_every_byte_enters_a_node_once_through_all_its_nics",
    ),
    in_timing(
        "sums are sent one way",
        '2 if sent.kind == "all-reduce" else 1',
        "1",
        f"{TIMING}::test_replicas_add_up_through_one_nic_there_and_back",
    ),
    in_timing(
        "exchanged tokens hide behind computing",
        "if sent < own else 0.0) + waited",
        "if sent < own else 0.0)",
        f"{TIMING}::test_for_tokens_that_are_exchanged_attention_waits",
    ),
    in_timing(
        "tokens are shared by whoever shares the weights",
        "if sent.tokens or not group:",
        "if not group:",
        f"{TIMING}::test_in_another_shape_the_same_processes_share_tokens",
    ),
    in_meter(
        "what DTensor makes to find out whole shapes is memory",
        "if self._asked or any(others):",
        "if any(others):",
        f"{METER}::test_what_dtensor_makes_to_find_out_whole_shapes_is_not_counted",
    ),
    in_meter(
        "a view is memory of its own",
        "if address not in self._sizes:\n            self._sizes[address] = 0",
        "if True:\n            self._sizes[address] = 0",
        f"{METER}::test_the_peak_is_of_what_lives_at_once_each_storage_once",
    ),
)
