"""Whether a pipeline can make the video that a prompt asks for: its size, and the images that it begins and ends with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import ContractError, DataError, Problem
from fastvideo_data.video_files import read_frames
from fastvideo_data.video_sizes import VideoGeometry, VideoSize

FIRST = "image_path"
"""Of a prompt: the image of its video's first frame."""
LAST = "last_image_path"
"""Of a prompt: that of the last one."""
CONDITIONS = "conditions"
"""Of a prompt: those at other frames."""


@dataclass(frozen=True)
class ImageUse:
    """Which images a pipeline's prompts must bring, and which they may bring besides: of FIRST and LAST.

    Where `frames_apart` is not 0, there may be CONDITIONS at frame 0 and, from frame 1 on, every so many frames.
    """

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    frames_apart: int = 0

    def problems(self, prompt: ValidationPrompt, where: str, num_frames: int) -> list[Problem]:
        """What is wrong with the images of a prompt whose video has so many frames; each is opened."""
        given = {name: path for name in (FIRST, LAST) if (path := getattr(prompt, name)) is not None}
        taken = (*self.needed, *self.optional)
        allowed = " and ".join(taken) if taken else "text prompts: this pipeline samples from text alone"
        problems = self._of_conditions(prompt, where, num_frames)
        for name in (FIRST, LAST):
            option = f"--{name.removesuffix('_path').replace('_', '-')}"
            if name in given and name not in taken:
                problems.append(
                    Problem(f"the prompt has an image, {name}", where, allowed, f"remove {name} or {option}")
                )
            elif name not in given and (name in self.needed or (name == FIRST and LAST in given)):
                problems.append(
                    Problem(f"the prompt has no {name}", where, allowed, f"add {name}, or {option} to sample")
                )
        if LAST in given and LAST in taken and num_frames == 1:
            found = f"the prompt has {LAST}, and its video one frame"
            problems.append(Problem(found, where, "two frames or more", "ask for more frames"))
        for path in () if problems else (*given.values(), *(path for path, *_ in prompt.conditions)):
            try:
                read_frames(path, max_frames=1)
            except DataError as error:
                problems += error.problems
        return problems

    def _of_conditions(self, prompt: ValidationPrompt, where: str, num_frames: int) -> list[Problem]:
        if prompt.conditions and not self.frames_apart:
            allowed = "none: this pipeline takes no images at other frames"
            return [Problem(f"the prompt has {CONDITIONS}", where, allowed, f"remove {CONDITIONS}")]
        frames = {frame for _, frame, _ in prompt.conditions}
        wrong = [
            frame for frame in sorted(frames) if (frame and (frame - 1) % self.frames_apart) or frame >= num_frames
        ]
        steps = "" if self.frames_apart == 1 else f" 0, 1, {1 + self.frames_apart}, {1 + 2 * self.frames_apart}, ...,"
        allowed = f"frames{steps} below {num_frames}, the frames of its video"
        problems = [Problem(f"the prompt has an image at frame {frame}", where, allowed) for frame in wrong]
        if self.frames_apart:
            given = [frame for _, frame, _ in prompt.conditions] + [0] * (prompt.image_path is not None)
            given += [max(num_frames - self.frames_apart, 0)] * (prompt.last_image_path is not None)
            twice = [frame for frame in sorted(set(given)) if given.count(frame) > 1]
            names = f"{FIRST} is at the first frame, {LAST} at the last one that may have an image"
            problems += [Problem(f"the prompt has two images at frame {f}", where, names, "keep one") for f in twice]
        return problems


TEXT_ALONE = ImageUse()
"""Of pipelines that sample from text."""


@dataclass(frozen=True)
class PromptImages:
    """The images of a prompt, uint8 RGB [H, W, 3] at its video's size; None for one that it does not bring.

    Of `conditions` each has its frame and strength, as in the prompt.
    """

    first: Tensor | None = None
    last: Tensor | None = None
    conditions: tuple[tuple[Tensor, int, float], ...] = ()

    @property
    def only_first(self) -> bool:
        """Whether none stands elsewhere than at the beginning, in full strength."""
        return self.last is None and not self.conditions


def read_prompt_images(prompt: ValidationPrompt, size: VideoSize) -> PromptImages:
    """A prompt's images, scaled to cover its video's size and cropped around the centre: as `preprocess` crops clips.

    Raises:
        DataError: one is missing or damaged.
    """

    def pixels(path: Path) -> Tensor:
        return torch.from_numpy(read_frames(path, height=size.height, width=size.width, max_frames=1)[0])

    first, last = (None if path is None else pixels(path) for path in (prompt.image_path, prompt.last_image_path))
    return PromptImages(
        first, last, tuple((pixels(path), frame, strength) for path, frame, strength in prompt.conditions)
    )


def fit_prompt(
    prompt: ValidationPrompt, size: VideoSize, geometry: VideoGeometry, images: ImageUse | None = TEXT_ALONE
) -> ValidationPrompt:
    """The prompt with the size of its video: its own, else `size`.

    Args:
        images: what its pipeline does with images; None where it is not known.

    Raises:
        DataError: the family makes no video of that size, or images are missing, damaged, or not taken.
    """
    where = prompt.where or f"prompt {prompt.caption!r}"
    height = size.height if prompt.height is None else prompt.height
    width = size.width if prompt.width is None else prompt.width
    num_frames = size.num_frames if prompt.num_frames is None else prompt.num_frames
    problems = [] if images is None else images.problems(prompt, where, num_frames)
    try:
        geometry.check(height=height, width=width, num_frames=num_frames, where=where)
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    return replace(prompt, height=height, width=width, num_frames=num_frames)


def video_size(prompt: ValidationPrompt) -> VideoSize:
    """The size of a prompt that went through `fit_prompt`; ContractError for another that leaves some of it open."""
    height, width, num_frames = prompt.height, prompt.width, prompt.num_frames
    if height is None or width is None or num_frames is None:
        found = f"the prompt {prompt.caption!r} comes to the sampler without its size"
        raise ContractError(Problem(found, fix="the validator fits it with `fit_prompt` before"))
    return VideoSize(height, width, num_frames)
