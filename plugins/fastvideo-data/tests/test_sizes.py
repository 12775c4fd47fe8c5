"""The sizes of videos."""

from __future__ import annotations

from typing import Any

import pytest

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import ConfigError, ContractError
from fastvideo_data.prompt_fit import video_size
from fastvideo_data.video_sizes import VideoSize, data_free_size


def size(**training: Any) -> VideoSize:
    args = TrainingArgs(output_dir="out", max_train_steps=1, **training)
    return data_free_size(args, size_multiple=32, temporal_factor=6)


@pytest.mark.parametrize("length", [{"num_latent_t": 3}, {"num_frames": 13}, {"num_latent_t": 3, "num_frames": 13}])
def test_a_run_names_its_length_in_frames_or_in_latent_frames(length):
    assert size(num_height=64, num_width=96, **length) == VideoSize(height=64, width=96, num_frames=13)


@pytest.mark.parametrize(
    ("training", "messages"),
    [
        (
            {},
            [
                "training.num_height: training without data latents needs a size",
                "training.num_width: training without data latents needs a size",
                "training.num_frames: training without data latents needs a length",
            ],
        ),
        (
            {"num_height": 33, "num_width": 96, "num_frames": 12},
            ["training.num_height: is 33", "multiples of 32 pixels", "num_frames: is 12", "multiples of 6 plus 1"],
        ),
        (
            {"num_height": 64, "num_width": 96, "num_frames": 13, "num_latent_t": 4},
            ["13 frames are 3 latent frames, not 4", "or only one of them"],
        ),
    ],
)
def test_everything_that_is_wrong_with_a_run_s_sizes_is_told_at_once(training, messages):
    with pytest.raises(ConfigError) as raised:
        size(**training)
    for message in messages:
        assert message in str(raised.value)


def test_a_prompt_that_nobody_fitted_is_told_to_the_validators_author():
    assert video_size(ValidationPrompt("a cat", height=32, width=64, num_frames=9)) == VideoSize(32, 64, 9)
    with pytest.raises(ContractError, match=r"(?s)'a cat' comes to the sampler without its size.*fit_prompt"):
        video_size(ValidationPrompt("a cat", height=32))
