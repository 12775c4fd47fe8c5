"""What a plug-in declares about itself: frozen, and made of names only, so that reading it imports nothing heavy."""

from __future__ import annotations  # `_FIELD_TYPES` reads the types of fields as they are written

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Kind = Literal["models", "methods", "callbacks", "commands", "metrics"]
"""The kinds of plug-in, as their entry-point groups end."""

CONFIGURED: tuple[Kind, ...] = ("models", "methods", "callbacks")
"""The kinds of plug-in that run.yaml names, each with options of its own."""

KINDS: tuple[Kind, ...] = (*CONFIGURED, "commands", "metrics")
"""All kinds of plug-in; the entry-point group of a kind is `fastvideo.<kind>`."""

API_VERSION = (1, 0)
"""(major, minor) of the contracts of this core. A plug-in fits when its major is equal and its minor not larger."""

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

Target = str
"""`module:attr` of something that is imported when it is needed."""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_target(value: object) -> bool:
    return isinstance(value, str) and _TARGET.fullmatch(value) is not None


_FIELD_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (_is_text, "a text"),
    "Target": (_is_target, "a text of the form 'module:attr'"),
    "Target | None": (lambda value: value is None or _is_target(value), "a text of the form 'module:attr'"),
    "str | None": (lambda value: value is None or _is_text(value), "a text such as 'since 0.3: use this and that'"),
    "tuple[str, ...]": (lambda value: isinstance(value, tuple) and all(map(_is_text, value)), "a tuple of names"),
    "tuple[int, int]": (
        lambda value: isinstance(value, tuple) and [type(part) for part in value] == [int, int],
        f"(major, minor) as in api={API_VERSION!r}",
    ),
}
"""By the type of a spec's field, as it is written: what fits, and its name in messages."""


@dataclass(frozen=True)
class Spec:
    """What every plug-in declares: its `name`, as its entry point has it, and the API_VERSION it is for.

    `deprecated` is of one that will go: "since 0.3: use this and that".
    """

    name: str
    api: tuple[int, int]
    deprecated: str | None = field(default=None, kw_only=True)

    @property
    def targets(self) -> dict[str, Target | None]:
        """What can be imported, by the field that names it; None where an optional one is not offered."""
        return {one.name: getattr(self, one.name) for one in fields(self) if str(one.type).startswith("Target")}

    def flaws(self) -> list[str]:
        """What is wrong with the values of the fields, in words; empty when nothing is."""
        found = []
        for one in fields(self):
            value, (fits, wanted) = getattr(self, one.name), _FIELD_TYPES[str(one.type)]
            if not fits(value):
                found.append(f"{one.name} is {value!r}, not {wanted}")
        return found


@dataclass(frozen=True)
class ModelPlugin(Spec):
    """A model family: `impl` is a ModelFamily subclass, `config` the PluginConfig of `pipeline_config`.

    `pipelines` are the diffusers pipeline classes whose folders it reads, by the names of model_index.json.
    """

    impl: Target
    config: Target
    pipelines: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodPlugin(Spec):
    """A training method: `impl` is a DistillMethod subclass, `config` the PluginConfig of `method_config`.

    run.yaml must name the `roles`, and may name the `optional_roles` besides, no others. `demo` is a function
    (fast=) -> MethodDemo, the method's part of the command `demo`.
    """

    impl: Target
    config: Target
    roles: tuple[str, ...]
    optional_roles: tuple[str, ...] = ()
    demo: Target | None = None

    def roles_in_words(self) -> str:
        """The roles of run.yaml, for messages and tables."""
        return ", ".join([*self.roles, *(f"{role} (optional)" for role in self.optional_roles)]) or "none"

    def flaws(self) -> list[str]:
        found = super().flaws()
        names = [] if found else [*self.roles, *self.optional_roles]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            found.append(f"roles and optional_roles name {', '.join(twice)} twice")
        return found


@dataclass(frozen=True)
class CallbackPlugin(Spec):
    """A callback: `impl` is a class with hook implementations, `config` the PluginConfig of its entry under `callbacks:`."""

    impl: Target
    config: Target


@dataclass(frozen=True)
class CommandPlugin(Spec):
    """A command of `fastvideo-distill`: `impl` is a `Command`, `help` one line about it."""

    help: str
    impl: Target


@dataclass(frozen=True)
class MetricPlugin(Spec):
    """A metric of videos: `impl` is a subclass of fastvideo_evaluate's `Metric`, `help` one line about it."""

    help: str
    impl: Target


@dataclass(frozen=True)
class Command:
    """`add_arguments` adds a command's options to the parser; `run` does its work and gives the exit code.

    `run` also finds in its arguments: `registry` (PluginRegistry, with the files of --plugin loaded), `plugin` (those files'
    paths, to hand on to other processes), `debug`, and `typed` (the whole command line).
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


SPEC_TYPES: dict[Kind, type[Spec]] = {
    "models": ModelPlugin,
    "methods": MethodPlugin,
    "callbacks": CallbackPlugin,
    "commands": CommandPlugin,
    "metrics": MetricPlugin,
}

SINGULAR: dict[Kind, str] = {
    "models": "model family",
    "methods": "method",
    "callbacks": "callback",
    "commands": "command",
    "metrics": "metric",
}
"""What one plug-in of a kind is called in messages."""

_EVALUATE = "fastvideo-evaluate"

FIRST_PARTY: dict[Kind, dict[str, str]] = {
    "models": {"wan": "fastvideo-wan", "ltx": "fastvideo-ltx"},
    "methods": {name: f"fastvideo-{name}" for name in ("dmd2", "finetune", "kd", "consistency", "rcm")},
    "callbacks": {
        "ema": "fastvideo-core",
        **dict.fromkeys(("grad_norm", "throughput", "profiler", "early_stop"), "fastvideo-tools"),
        "quality_watch": "fastvideo-evaluate",
    },
    "commands": {
        **dict.fromkeys(("train", "check", "plugins", "sample", "export"), "fastvideo-core"),
        "preprocess": "fastvideo-data",
        "trajectories": "fastvideo-kd",
        "evaluate": "fastvideo-evaluate",
        **dict.fromkeys(
            (
                "demo",
                "report",
                "doctor",
                "init",
                "new-plugin",
                "convert",
                "pairs",
                "schema",
                "tiny",
                "fits",
                "simulate",
            ),
            "fastvideo-tools",
        ),
    },
    "metrics": {
        **dict.fromkeys(("brightness", "contrast", "saturation", "sharpness", "motion", "flicker"), _EVALUATE),
        **dict.fromkeys(("diversity", "optical_flow", "paired_frames", "paired_latents"), _EVALUATE),
        **dict.fromkeys(("frame_wasserstein", "frame_energy", "latent_wasserstein", "latent_energy"), _EVALUATE),
        **dict.fromkeys(("clip_similarity", "fvd", "vbench_dynamic_degree", "vbench_temporal_flickering"), _EVALUATE),
        **dict.fromkeys(
            ("vbench_background_consistency", "vbench_motion_smoothness", "frame_prompt_energy"), _EVALUATE
        ),
        **dict.fromkeys(("vbench_aesthetic_quality", "vbench_imaging_quality", "latent_prompt_energy"), _EVALUATE),
    },
}
"""Distributions of this project by the name of what they give."""
