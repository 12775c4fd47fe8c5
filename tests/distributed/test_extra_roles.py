"""A frozen role that a method makes and changes: placed like all others, saved, and the same to the bit after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.config.run import LoraConfig, RoleConfig
from fastvideo_core.contracts.roles import is_lora_parameter
from fastvideo_core.dispatch.role_weights import role_source
from fastvideo_testing.ranks import run_ranks

pytestmark = pytest.mark.distributed


def train(out: Path, world_size: int, **options: Any) -> dict[str, dict[str, Any]]:
    run_ranks("tests.distributed.averaged_target:train", {"out": out, **options}, world_size=world_size)
    seen: dict[str, dict[str, Any]] = torch.load(out.parent / f"{out.name}.pt")
    return seen


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize(
    ("world_size", "options"),
    [(1, {}), (2, {}), (2, {"hsdp_replicate_dim": 2})],
)
def test_an_averaged_target_resumes_to_the_bit(tmp_path: Path, world_size: int, options: dict[str, Any]) -> None:
    whole = train(tmp_path / "whole", world_size, **options)
    start, end, placed = whole["start"], whole["end"], whole["placed"]
    of_target = [name for name in end if name.startswith("target.")]
    for name in of_target:
        original = name.replace("target.", "student.")
        assert torch.equal(start[name], start[original])
        assert not torch.equal(end[name], start[name])
        assert not torch.equal(end[name], end[original])
        assert placed[name] == placed[original]
    assert any("Shard" in placed[name] for name in of_target) is (world_size > 1)

    middle = tmp_path / "whole" / "checkpoint-000003"
    again = train(tmp_path / "again", world_size, resume_from_checkpoint=str(middle), **options)
    assert differing(end, again["end"]) == []
    info = describe(tmp_path / "again")
    assert info.copies == {"target": "student"}
    stored = read_role_weights(tmp_path / "again", "target", ema=False)["transformer"]
    assert (
        differing(
            {f"target.transformer.{name}": value for name, value in stored.items()}, {n: end[n] for n in of_target}
        )
        == []
    )


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_copy_of_a_role_that_trains_adapters_has_the_same_ones(tmp_path: Path, world_size: int) -> None:
    lora = {"rank": 2, "targets": ["net.0", "net.2"]}
    whole = train(tmp_path / "whole", world_size, lora=lora)
    start, end = whole["start"], whole["end"]
    for name in (name for name in end if name.startswith("target.")):
        original = name.replace("target.", "student.")
        assert torch.equal(start[name], start[original])
        moved = is_lora_parameter(name)
        assert torch.equal(end[name], start[name]) is not moved
        assert torch.equal(end[name], end[original]) is not moved

    middle = tmp_path / "whole" / "checkpoint-000003"
    again = train(tmp_path / "again", world_size, lora=lora, resume_from_checkpoint=str(middle))
    assert differing(end, again["end"]) == []
    stored = read_role_weights(tmp_path / "again", "target", ema=False)["transformer"]
    assert all(is_lora_parameter(name) for name in stored)
    described = RoleConfig(path=str(tmp_path / "again"), trainable=True, checkpoint_role="target")
    source = role_source("student", described)
    assert source.lora == LoraConfig.model_validate(lora)
    assert source.below is not None


def test_one_that_is_not_saved_does_not(tmp_path: Path) -> None:
    """So that the test above sees what it is there for."""
    whole = train(tmp_path / "whole", 1, kind="Forgotten")
    middle = tmp_path / "whole" / "checkpoint-000003"
    again = train(tmp_path / "again", 1, kind="Forgotten", resume_from_checkpoint=str(middle))
    assert any(name.startswith("target.") for name in differing(whole["end"], again["end"]))
