"""What a pipeline can make of a prompt: the images that it takes, and their pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import DataError
from fastvideo_data.prompt_fit import FIRST, LAST, ImageUse, PromptImages, fit_prompt, read_prompt_images
from fastvideo_data.video_files import read_frames, write_video
from fastvideo_data.video_sizes import VideoGeometry, VideoSize

GEOMETRY = VideoGeometry(4, 1, 16, 16.0)
SIZE = VideoSize(32, 48, 5)


def picture(path: Path, height: int = 40, width: int = 60) -> Path:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 6, columns * 4, np.full_like(rows, 77)], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def problems(prompt: ValidationPrompt, images: ImageUse) -> str:
    with pytest.raises(DataError) as caught:
        fit_prompt(prompt, SIZE, GEOMETRY, images)
    return str(caught.value)


def test_a_prompt_brings_the_images_that_its_pipeline_needs_and_no_others(tmp_path: Path) -> None:
    first, last = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    text, one = ValidationPrompt("x"), ValidationPrompt("x", image_path=first)
    both, end = (
        ValidationPrompt("x", image_path=first, last_image_path=last),
        ValidationPrompt("x", last_image_path=last),
    )
    needs_one, needs_both, may = ImageUse((FIRST,)), ImageUse((FIRST, LAST)), ImageUse((), (FIRST, LAST))
    for images, good in (
        (ImageUse(), [text]),
        (needs_one, [one]),
        (needs_both, [both]),
        (may, [text, one, both]),
        (ImageUse((FIRST,), (LAST,)), [one, both]),
        (None, [text, one, both, end]),
    ):
        for prompt in (text, one, both, end):
            if prompt in good:
                assert fit_prompt(prompt, SIZE, GEOMETRY, images).height == 32
            else:
                assert "the prompt has" in problems(prompt, images)
    assert "the prompt has no image_path" in problems(text, needs_one)
    assert "or --last-image to sample" in problems(one, needs_both)
    assert "the prompt has an image, last_image_path" in problems(both, needs_one)
    assert "the prompt has no image_path" in problems(end, may)
    assert "has last_image_path, and its video one frame" in problems(replace(both, num_frames=1), needs_both)
    assert fit_prompt(replace(one, num_frames=1), SIZE, GEOMETRY, may).num_frames == 1


def test_sizes_and_images_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    said = problems(ValidationPrompt("x", height=33, image_path=tmp_path / "broken.png"), ImageUse((FIRST,)))
    assert "height is 33" in said
    assert "broken.png" in said
    said = problems(ValidationPrompt("x", image_path=tmp_path / "none.png"), ImageUse((FIRST,)))
    assert "none.png: there is no such image file" in said


def test_the_pixels_are_those_that_preprocess_makes_of_a_clip(tmp_path: Path) -> None:
    path = picture(tmp_path / "wide.png", height=40, width=120)
    images = read_prompt_images(ValidationPrompt("x", image_path=path, last_image_path=path), SIZE)
    assert images.first is not None
    assert images.last is not None
    assert images.first.shape == (32, 48, 3)
    expected = read_frames(path, height=32, width=48)
    assert np.array_equal(images.first.numpy(), expected[0])
    assert np.array_equal(images.last.numpy(), expected[0])
    # Cropped around the centre, not squeezed: the columns are those of the middle of the picture, whose 120 became 96.
    assert abs(float(images.first[0, 0, 1]) - 4 * (24 * 120 / 96)) < 8
    assert read_prompt_images(ValidationPrompt("x"), SIZE) == PromptImages()


def test_images_at_frames_are_taken_where_the_pipeline_takes_them(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    at = [ValidationPrompt("x", conditions=((path, frame, 0.5),)) for frame in (0, 1, 2, 5)]
    assert "the prompt has conditions" in problems(at[0], ImageUse())
    for good, use in ((at[:2], ImageUse(frames_apart=4)), (at[:3], ImageUse(frames_apart=1))):
        for prompt in at:
            if prompt in good:
                fit_prompt(prompt, SIZE, GEOMETRY, use)
            else:
                assert f"an image at frame {prompt.conditions[0][1]}" in problems(prompt, use)
    (image,) = read_prompt_images(at[1], SIZE).conditions
    assert image[1:] == (1, 0.5)
    assert image[0].shape == (32, 48, 3)


def test_no_frame_has_two_images(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    ends = ValidationPrompt("x", image_path=path, last_image_path=path)
    use = ImageUse(optional=(FIRST, LAST), frames_apart=4)
    fit_prompt(ends, SIZE, GEOMETRY, use)
    for frame in (0, 1):  # the last latent frame of five frames begins at frame 1
        assert f"two images at frame {frame}" in problems(replace(ends, conditions=((path, frame, 0.5),)), use)
    twice = ValidationPrompt("x", conditions=((path, 1, 0.5), (path, 1, 1.0)))
    assert "two images at frame 1" in problems(twice, use)


def test_a_video_gives_its_first_frame(tmp_path: Path) -> None:
    frames = np.stack([np.full((32, 48, 3), 40 + 50 * n, np.uint8) for n in range(3)])
    write_video(tmp_path / "clip.mp4", frames, 16.0)
    images = read_prompt_images(ValidationPrompt("x", image_path=tmp_path / "clip.mp4"), SIZE)
    assert images.first is not None
    assert abs(float(images.first.float().mean()) - 40) < 4
