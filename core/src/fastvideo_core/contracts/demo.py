"""What a family and a method give to the command `demo`; imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ClipSize:
    """Of every clip of a demo: pixels, frames, frames per second."""

    height: int
    width: int
    num_frames: int
    fps: float


@dataclass(frozen=True)
class FamilyDemo:
    """A pipeline and clips so small that they are trained on a laptop's processor in minutes.

    `write_pipeline(new folder, words of the captions, seed)` makes a pipeline in the family's real format, with a decoder
    whose pictures can be recognised, a text encoder that tells the words apart, and an untrained network.
    """

    write_pipeline: Callable[[Path, tuple[str, ...], int], None]
    size: ClipSize
    pipeline_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoRun:
    """One run of a method, for a network of a million parameters: sections of its yaml file, `name`.yaml.

    `roles` lack the path, which is the demo's pipeline, or the teacher's run where there is one; `training` lacks paths and
    sizes. `calls` are network calls of its few-step sampler; None is the family's many-step one.
    """

    name: str
    roles: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]
    method_config: Mapping[str, Any] = field(default_factory=dict)
    pipeline_config: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Mapping[str, Any] = field(default_factory=dict)
    calls: int | None = None


@dataclass(frozen=True)
class DemoData:
    """A command that makes what a method trains on, where that is not the clips: from prompts and the teacher.

    It is called with `--family`, `--model` (the teacher's run), `--prompts`, `--output` and the size of a clip besides.
    `prompts` is their number: the captions of the demo, again and again.
    """

    command: str
    options: tuple[str, ...]
    prompts: int


@dataclass(frozen=True)
class MethodDemo:
    """A method's part of the demo: what it trains, in runs beside each other, on `data` or, with None, on the clips.

    All roles start from the network of the demo of the method `teacher`. With None they start from the untrained one, and the
    (only) run is itself the teacher that is shown, also with guidance at `guidance_scale`.
    """

    runs: tuple[DemoRun, ...]
    teacher: str | None = None
    guidance_scale: float = 1.0
    data: DemoData | None = None
