"""The output of `evaluate`: whose videos lie in it, made with which settings, and the videos."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt
from fastvideo_core.errors import ConfigError, DataError, Problem, foreign_file
from fastvideo_data.schema import published
from fastvideo_data.video_files import probe, read_frames, write_video
from fastvideo_evaluate.metrics.contract import Sample

SETTINGS, SAMPLED, RESULTS, PAGE = "evaluation.json", "sampled.json", "results.json", "index.html"
_FORMAT = 1
_OTHER_FOLDER = "name another --output, or remove this one"


class Videos:
    """The output folder: videos/MODEL/PROMPT-SEED.mp4, and the latents that were decoded beside each where there are any.

    Args:
        folder: of --output.
        prompts: in their order; numbers name them.
        settings: of each model by its name: what its videos depend on beside prompt and seed.

    Raises:
        ConfigError: the folder holds another evaluation, or something else.
    """

    def __init__(
        self, folder: Path, prompts: Sequence[ValidationPrompt], settings: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.folder = folder
        self._stored = self._read()
        told = json.loads(json.dumps([described(prompt) for prompt in prompts]))
        problems = []
        for number, (one, other) in enumerate(zip(self._stored["prompts"], told, strict=False), 1):
            problems += [f"prompt {number}: {text}" for text in _differences(one, other)]
        for name, now in json.loads(json.dumps(settings)).items():
            problems += [f"{name}: {text}" for text in _differences(self._stored["models"].get(name, now), now)]
        if problems:
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            found = f"holds another evaluation: {'; '.join(problems[:5])}{more}"
            raise ConfigError(Problem(found, f"--output ({folder})", fix=_OTHER_FOLDER))
        longer = max(told, self._stored["prompts"], key=len)
        self._stored = {"format": _FORMAT, "prompts": longer, "models": {**self._stored["models"], **settings}}

    def _read(self) -> dict[str, Any]:
        path = self.folder / SETTINGS
        there = (
            list(self.folder.iterdir()) if self.folder.is_dir() else []
        )  # before: another process may begin meanwhile
        if not path.is_file():
            others = [one.name for one in there if not one.name.startswith(".")]
            if others:
                found = f"holds something that is no evaluation: {', '.join(sorted(others)[:3])}"
                raise ConfigError(Problem(found, f"--output ({self.folder})", fix="name a new folder"))
            return {"prompts": [], "models": {}}
        with foreign_file(path, "list of an evaluation", ConfigError, fix=_OTHER_FOLDER):
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != _FORMAT:
                found = f"is of format {stored['format']}"
                raise ConfigError(Problem(found, str(path), f"format {_FORMAT}", fix=_OTHER_FOLDER))
            stored["prompts"], stored["models"] = list(stored["prompts"]), dict(stored["models"])
        return stored

    def begin(self) -> None:
        """Writes down the settings, before the first video."""
        self.write(SETTINGS, json.dumps(self._stored, indent=1))

    def begin_model(self, model: str, sampled: Mapping[str, Any]) -> None:
        """Writes down how a model is sampled."""
        self.write(f"videos/{model}/{SAMPLED}", json.dumps(sampled))

    def sampled(self, model: str) -> dict[str, Any]:
        """What `begin_model` wrote down."""
        path = self.folder / "videos" / model / SAMPLED
        with foreign_file(path, "note on a model", DataError, fix="delete the folder, and start again"):
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return told

    def write(self, name: str, text: str) -> None:
        """A text file of the folder, whole or not at all; several processes may write the same one."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            aside.write_text(text + "\n", encoding="utf-8", errors="replace")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def path(self, model: str, prompt: int, seed: int) -> Path:
        """Where the video of a model, a prompt's number and a seed's lies."""
        return self.folder / "videos" / model / f"{prompt:04d}-{seed}.mp4"

    def add(self, model: str, prompt: int, seed: int, video: SampledVideo) -> None:
        """Writes a video; its mp4 is there when all of it is."""
        path = self.path(model, prompt, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        if video.latents is not None:
            with published(path.with_suffix(".npy")) as aside, aside.open("wb") as file:
                np.save(file, video.latents.cpu().numpy().astype(np.float16))
        audio = None if video.audio is None else video.audio.cpu().numpy()
        write_video(path, video.frames.cpu().numpy(), video.fps, audio=audio, sample_rate=video.sample_rate)

    def sample(self, model: str, prompt: int, seed: int, caption: str) -> Sample:
        """What was made, as metrics see it: the frames of the mp4.

        Raises:
            DataError: the file is damaged.
        """
        path = self.path(model, prompt, seed)
        stored, latents = path.with_suffix(".npy"), None
        if stored.is_file():
            with foreign_file(stored, "file of latents", DataError, fix="delete it and the mp4, and start again"):
                latents = np.load(stored).astype(np.float32)
        return Sample(caption, seed, read_frames(path), probe(path).fps, latents)


def described(prompt: ValidationPrompt) -> dict[str, Any]:
    """What a video depends on of a prompt: images by their content, not by their place."""
    told: dict[str, Any] = asdict(prompt)
    del told["where"]
    told |= {name: _picture(told[name]) for name in ("image_path", "last_image_path") if told[name] is not None}
    told["conditions"] = [[_picture(path), frame, strength] for path, frame, strength in prompt.conditions]
    return told


def _picture(path: Path) -> str:
    with foreign_file(path, "image"):
        return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in {**then, **now}:
        if then.get(key) != now.get(key):
            yield f"{key} was {then.get(key)!r}, is {now.get(key)!r}"
