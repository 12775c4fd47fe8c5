"""Real clips with captions in the place of a teacher's videos."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fastvideo_core.contracts.validator import SampledVideo
from fastvideo_core.errors import ConfigError, DataError, Problem, foreign_file
from fastvideo_core.launch.stdio import complain
from fastvideo_data.preprocessing.progress import progress
from fastvideo_data.preprocessing.raw_videos import discover
from fastvideo_data.video_files import probe, read_frames
from fastvideo_evaluate.command.sampling import Shared
from fastvideo_evaluate.command.videos import Videos

OPTION, MOST_TOLD = "--against-clips", 5


@dataclass(frozen=True)
class Clips:
    """As many clips of every prompt's caption as it has seeds.

    Args:
        folder: where they are, as `preprocess` reads it.
        files: of each prompt.
        name: in tables, and of the folder of their copies.
    """

    folder: Path
    files: Sequence[Sequence[Path]]
    name: str = "clips"

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that tell these clips from others."""
        found = hashlib.sha256()
        for path in (path for of_prompt in self.files for path in of_prompt):
            with foreign_file(path, "clip"):
                found.update(path.read_bytes())
        return found.hexdigest()[:16]

    def add_to(self, videos: Videos, beside: str) -> None:
        """Writes those that are not there yet, with the size, the length and the rate of the videos of the model `beside`.

        So they went through the same codec, and motion is that between frames equally far apart.

        Raises:
            DataError: a clip is damaged, or shorter than that.
        """
        videos.begin_model(self.name, {"clips": str(self.folder)})
        jobs = [(number, seed, path) for number, files in enumerate(self.files) for seed, path in enumerate(files)]
        missing = [job for job in jobs if not videos.path(self.name, *job[:2]).exists()]
        for number, seed, path in progress(missing, "clip"):
            other = videos.path(beside, number, seed)
            made, rate = read_frames(other), probe(other).fps
            frames = read_frames(path, height=made.shape[1], width=made.shape[2], fps=rate, max_frames=len(made))
            if len(frames) < len(made):
                found = f"has {len(frames)} frames at {rate:g} a second, and the videos have {len(made)}"
                raise DataError(Problem(found, str(path), fix="leave it out, or evaluate with a lower --num-frames"))
            videos.add(self.name, number, seed, SampledVideo(torch.from_numpy(frames), rate))


def open_clips(folder: str, shared: Shared) -> Clips:
    """The clips at a path that `preprocess` would take; prompts that are the same share them out.

    Raises:
        UserError: there are no videos, or too few of a prompt's caption.
    """
    source = discover(folder)
    if not source.has_videos:
        raise ConfigError(Problem("holds prompts and no videos", f"{OPTION} ({folder})"))
    if source.problems:
        first = source.problems[0]
        complain(f"note: {len(source.problems)} of the clips cannot be used, first {first.item}: {first.reason}")
    left = defaultdict[str, list[Path]](list)
    for item in source.items:
        if item.video is not None:
            left[item.caption].append(item.video)
    held = {caption: len(files) for caption, files in left.items()}
    captions = [prompt.caption.strip() for prompt in shared.prompts]
    problems = []
    for caption in dict.fromkeys(captions):
        there, wanted = held.get(caption, 0), captions.count(caption) * shared.seeds
        if there < wanted:
            found = f"has {there} clip{'' if there == 1 else 's'} of {caption!r}, and {wanted} are compared"
            problems.append(Problem(found, f"{OPTION} ({folder})", fix="lower --seeds, or leave that prompt out"))
    if problems:
        raise ConfigError(problems[:MOST_TOLD])
    chosen = [[left[caption].pop(0) for _ in range(shared.seeds)] for caption in captions]
    return Clips(Path(folder), chosen)
