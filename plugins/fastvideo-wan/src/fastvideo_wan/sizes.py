"""The sizes of the videos that Wan 2.1 makes, and of those that prompts ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.data.encoder import VideoGeometry
from fastvideo_core.data.validation import ValidationPrompt
from fastvideo_core.errors import DataError, Problem
from fastvideo_wan.config import FRAMES_DIVISOR, SIZE_MULTIPLE

FPS = 16.0
GEOMETRY = VideoGeometry(frames_divisor=FRAMES_DIVISOR, frames_remainder=1, size_multiple=SIZE_MULTIPLE, fps=FPS)


@dataclass(frozen=True)
class DefaultSize:
    """The video size of prompts that name none: pixels and frames."""

    height: int = 480
    width: int = 832
    num_frames: int = 81

    @classmethod
    def of_run(cls, training: TrainingArgs) -> DefaultSize:
        """The run's sizes; Wan's own where it names none."""
        given = {"height": training.num_height, "width": training.num_width, "num_frames": training.num_frames}
        return cls(**{name: value for name, value in given.items() if value is not None})


def fit_prompt(prompt: ValidationPrompt, size: DefaultSize) -> ValidationPrompt:
    """The prompt with the size of its video: its own, else `size`.

    Raises:
        DataError: Wan 2.1 text-to-video makes no video of that size, or the prompt brings an image.
    """
    where = prompt.where or f"prompt {prompt.caption!r}"
    height = size.height if prompt.height is None else prompt.height
    width = size.width if prompt.width is None else prompt.width
    num_frames = size.num_frames if prompt.num_frames is None else prompt.num_frames
    problems: list[Problem] = []
    if prompt.image_path is not None:
        allowed = "text prompts: this family does Wan 2.1 text-to-video"
        problems.append(Problem("the prompt has an image_path", where, allowed=allowed, fix="remove image_path"))
    try:
        GEOMETRY.check(height=height, width=width, num_frames=num_frames, where=where)
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    return replace(prompt, height=height, width=width, num_frames=num_frames)
