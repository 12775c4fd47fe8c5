"""The parts of the kit: pretended processes, draws that belong to samples, comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.distributed import context
from fastvideo_testing import PerSampleDraws, build_run, fake_process_group, toy_world
from fastvideo_testing.compare import assert_close, assert_equal


def test_inside_a_fake_group_this_is_one_of_several() -> None:
    with fake_process_group(rank=2, world_size=4):
        assert (context.rank(), context.world_size(), context.is_main_process()) == (2, 4, False)
        torch.distributed.all_reduce(torch.ones(1))
        context.barrier()
    assert (context.rank(), context.world_size()) == (0, 1)


def draws_of(folder: Path, sizes: list[int]) -> torch.Tensor:
    folder.mkdir()
    run = {
        "recipe": {"family": "toy", "method": "toy"},
        "roles": {
            "student": {"path": "toy/a", "trainable": True},
            "teacher": {"path": "toy/b", "trainable": False},
        },
        "training": {"output_dir": str(folder / "out"), "max_train_steps": 1},
    }
    with toy_world():
        method = build_run(folder, run).method
    parts, first = [], 0
    for size in sizes:
        with PerSampleDraws(method, size) as draws:
            draws.begin(1, first)
            parts.append(torch.randn(size, 3, generator=method.rng.local("noise")))
        first += size
    return torch.cat(parts)


def test_a_sample_gets_the_same_numbers_however_the_batch_is_cut(tmp_path: Path) -> None:
    whole = draws_of(tmp_path / "whole", [6])
    assert torch.equal(whole, draws_of(tmp_path / "cut", [2, 4]))
    assert len(set(whole.flatten().tolist())) == 18


def test_generators_of_others_are_left_alone(tmp_path: Path) -> None:
    assert isinstance(RandomStreams(0).local("x"), torch.Generator)
    generator = torch.Generator().manual_seed(3)
    expected = torch.randn(4, generator=generator)
    with toy_world():
        folder = tmp_path / "run"
        draws_of(folder, [4])
    generator.manual_seed(3)
    assert torch.equal(torch.randn(4, generator=generator), expected)


def test_comparisons_say_by_how_much() -> None:
    with pytest.raises(AssertionError, match=r"the loss is off by 0\.5 where values are up to 2; check the sign"):
        assert_close("the loss", torch.tensor([1.5]), torch.tensor([2.0]), advice="check the sign")
    with pytest.raises(AssertionError, match=r"the loss has shape \[2\], not \[1\]"):
        assert_close("the loss", torch.zeros(2), torch.zeros(1))
    with pytest.raises(AssertionError, match=r"the weight differs, by up to 1"):
        assert_equal("the weight", torch.zeros(1), torch.ones(1))
