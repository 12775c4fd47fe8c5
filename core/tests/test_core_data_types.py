"""Roles, batches, random streams and errors: the small contracts."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fastvideo_core import RandomStreams, RoleHandle, RoleManager, TrainingBatch
from fastvideo_core.contracts.batch import Trajectory
from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_core.errors import ConfigError, ContractError, Problem


def test_missing_roles_are_named_all_at_once_with_those_that_exist():
    bundle = RoleManager({"student": RoleHandle("student", {"net": nn.Linear(1, 1)})})
    with pytest.raises(
        ContractError, match=r"roles: missing roles teacher, critic\n    allowed: this run has: student"
    ):
        bundle.require_roles(["student", "teacher", "critic"])


def test_dropped_samples_get_the_empty_text_where_there_is_one_else_the_negative_conditioning():
    batch = TrainingBatch(
        latents=torch.zeros(3, 1),
        conditioning={"text": torch.ones(3, 2, 4)},
        negative_conditioning={"text": torch.full((3, 2, 4), -1.0)},
    )
    mixed = batch.with_conditioning_dropped(torch.tensor([False, True, False])).conditioning["text"]
    assert mixed[:, 0, 0].tolist() == [1.0, -1.0, 1.0]
    empty = replace(batch, dropped_conditioning={"text": torch.zeros(3, 2, 4)})
    mixed = empty.with_conditioning_dropped(torch.tensor([False, True, False])).conditioning["text"]
    assert mixed[:, 0, 0].tolist() == [1.0, 0.0, 1.0]
    assert empty.with_both_conditionings().dropped_conditioning is None


def test_guidance_doubles_the_context_and_swaps_only_the_conditioning():
    batch = TrainingBatch(
        latents=torch.zeros(2, 1),
        conditioning={"text": torch.ones(2, 3)},
        negative_conditioning={"text": torch.full((2, 3), -1.0)},
        context={"fps": torch.tensor([16.0, 24.0])},
        trajectory=Trajectory(torch.zeros(2, 4, 1), torch.zeros(2, 4)),
    )
    twice = batch.with_both_conditionings()
    assert twice.conditioning["text"][:, 0].tolist() == [1.0, 1.0, -1.0, -1.0]
    assert twice.context["fps"].tolist() == [16.0, 24.0, 16.0, 24.0]
    assert twice.trajectory is None
    dropped = batch.with_conditioning_dropped(torch.tensor([True, True]))
    assert dropped.context is batch.context
    assert dropped.trajectory is batch.trajectory


def test_local_streams_differ_by_rank_and_shared_ones_do_not():
    first, second = RandomStreams(0, rank=0), RandomStreams(0, rank=1)
    assert not torch.equal(
        torch.rand(4, generator=first.local("noise")), torch.rand(4, generator=second.local("noise"))
    )
    assert torch.equal(torch.rand(4, generator=first.shared("exit")), torch.rand(4, generator=second.shared("exit")))


def test_streams_continue_where_their_state_was_taken():
    streams = RandomStreams(3)
    torch.rand(5, generator=streams.local("noise"))
    state = streams.state_dict()
    expected = torch.rand(5, generator=streams.local("noise"))
    restored = RandomStreams(3)
    torch.rand(1, generator=restored.local("noise"))
    restored.load_state_dict(state)
    assert torch.equal(torch.rand(5, generator=restored.local("noise")), expected)


def test_a_new_stream_does_not_change_the_numbers_of_another():
    alone, together = RandomStreams(0), RandomStreams(0)
    torch.rand(3, generator=together.local("other"))
    assert torch.equal(torch.rand(3, generator=alone.local("a")), torch.rand(3, generator=together.local("a")))


def test_weighted_means_leave_out_what_has_weight_zero():
    values = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert mean_per_sample(values).tolist() == [2.0, 6.0]
    assert mean_per_sample(values, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).tolist() == [1.0, 0.0]


def test_an_error_with_several_problems_lists_them_all():
    text = str(ConfigError([Problem("a is wrong", "run.yaml:1 a", "b", "write b"), Problem("c is missing")]))
    assert text == (
        "the run's configuration is wrong (2 problems):\n"
        "  1. run.yaml:1 a: a is wrong\n      allowed: b\n      fix: write b\n"
        "  2. c is missing"
    )
