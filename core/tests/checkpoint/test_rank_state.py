"""Whose state a process goes on with when as many groups of processes as before share samples, and when not."""

from __future__ import annotations

import pytest

from fastvideo_core.checkpoint.rank_state import same_rank
from fastvideo_core.checkpoint.storage import CheckpointDocument
from fastvideo_core.config.training import TrainingArgs
from fastvideo_testing.ranks import fake_process_group


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ((4, 2), (4, 2), [0, 1, 2, 3]),
        ((2, 1), (4, 2), [0, 0, 1, 1]),
        ((4, 2), (2, 1), [0, 2]),
        ((4, 1), (4, 2), [None] * 4),
        ((2, 2), (2, 1), [None] * 2),
    ],
)
def test_who_goes_on_with_whose_random_state(then, now, expected) -> None:
    """Of (processes, processes that share a sample)."""
    document = CheckpointDocument(
        step=1, world_size=then[0], sequence_parallel=then[1], versions={}, files={}, state={}
    )
    training = TrainingArgs(output_dir="out", max_train_steps=2, num_gpus=now[0], sequence_parallel=now[1])
    found = []
    for rank in range(now[0]):
        with fake_process_group(rank, now[0]):
            found.append(same_rank(document, training))
    assert found == expected
