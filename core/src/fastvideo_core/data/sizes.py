"""The sizes of videos that a family makes, and of those that prompts ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.data.encoder import VideoGeometry
from fastvideo_core.data.validation import ValidationPrompt
from fastvideo_core.errors import DataError, Problem


@dataclass(frozen=True)
class VideoSize:
    """The size of a video: pixels and frames."""

    height: int
    width: int
    num_frames: int

    def of_run(self, training: TrainingArgs) -> VideoSize:
        """The run's sizes; these where it names none."""
        given = {"height": training.num_height, "width": training.num_width, "num_frames": training.num_frames}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def fit_prompt(prompt: ValidationPrompt, size: VideoSize, geometry: VideoGeometry) -> ValidationPrompt:
    """The prompt with the size of its video: its own, else `size`.

    Raises:
        DataError: the family makes no video of that size, or the prompt brings an image.
    """
    where = prompt.where or f"prompt {prompt.caption!r}"
    height = size.height if prompt.height is None else prompt.height
    width = size.width if prompt.width is None else prompt.width
    num_frames = size.num_frames if prompt.num_frames is None else prompt.num_frames
    problems: list[Problem] = []
    if prompt.image_path is not None:
        allowed = "text prompts: this family samples from text alone"
        problems.append(Problem("the prompt has an image_path", where, allowed=allowed, fix="remove image_path"))
    try:
        geometry.check(height=height, width=width, num_frames=num_frames, where=where)
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    return replace(prompt, height=height, width=width, num_frames=num_frames)


def video_size(prompt: ValidationPrompt) -> VideoSize:
    """The size of a prompt that went through `fit_prompt`."""
    assert prompt.height is not None
    assert prompt.width is not None
    assert prompt.num_frames is not None
    return VideoSize(prompt.height, prompt.width, prompt.num_frames)
