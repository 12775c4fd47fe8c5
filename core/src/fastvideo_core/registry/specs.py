"""What a plug-in declares about itself: frozen, and made of names only, so that reading it imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

Kind = Literal["models", "methods", "callbacks", "commands"]

CONFIGURED: tuple[Kind, ...] = ("models", "methods", "callbacks")
"""The kinds of plug-in that run.yaml names, each with options of its own."""

KINDS: tuple[Kind, ...] = (*CONFIGURED, "commands")
"""All kinds of plug-in; the entry-point group of a kind is `fastvideo.<kind>`."""

API_VERSION = (1, 0)
"""(major, minor) of the contracts of this core. A plug-in fits when its major is equal and its minor not larger."""

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Spec:
    """What every kind of plug-in declares; every `module:attr` is text.

    Args:
        name: as run.yaml (or the command line) has it; the entry point has the same name.
        api: the API_VERSION that the plug-in was written for.
    """

    name: str
    api: tuple[int, int]

    targets: ClassVar[tuple[str, ...]] = ()

    def target(self, field: str) -> str | None:
        """The `module:attr` of one of `targets`; None where an optional one is not offered."""
        if field not in self.targets:
            raise ValueError(f"{type(self).__name__} has no target {field!r}; it has {', '.join(self.targets)}")
        value: str | None = getattr(self, field)
        return value

    def flaws(self) -> list[str]:
        """What is wrong with the values of the fields, in words; empty when nothing is."""
        found = [] if isinstance(self.name, str) and self.name else ["name is not a text"]
        if not (isinstance(self.api, tuple) and [type(part) for part in self.api] == [int, int]):
            found.append(f"api is {self.api!r}, not (major, minor) as in api={API_VERSION!r}")
        optional = {field.name for field in fields(self) if field.default is None}
        for name in self.targets:
            value = self.target(name)
            left_out = value is None and name in optional
            if not left_out and not (isinstance(value, str) and _TARGET.fullmatch(value)):
                found.append(f"{name} is {value!r}, not a text of the form 'module:attr'")
        return found


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) and name for name in value)


@dataclass(frozen=True)
class ModelPlugin(Spec):
    """A model family.

    Args:
        impl: ModelFamily subclass.
        config: PluginConfig subclass of `pipeline_config`.
        pipelines: the diffusers pipeline classes whose folders it reads, by the names of model_index.json.
    """

    impl: str
    config: str
    pipelines: tuple[str, ...] = ()

    targets: ClassVar[tuple[str, ...]] = ("impl", "config")

    def flaws(self) -> list[str]:
        found = super().flaws()
        if not _are_names(self.pipelines):
            found.append(f"pipelines is {self.pipelines!r}, not a tuple of names")
        return found


@dataclass(frozen=True)
class MethodPlugin(Spec):
    """A training method.

    Args:
        impl: DistillMethod subclass.
        config: PluginConfig subclass of `method_config`.
        roles: the roles that run.yaml must name.
        optional_roles: those that it may name besides, and no others.
        demo: function (fast=) -> MethodDemo, the method's part of the command `demo`.
    """

    impl: str
    config: str
    roles: tuple[str, ...]
    optional_roles: tuple[str, ...] = ()
    demo: str | None = None

    targets: ClassVar[tuple[str, ...]] = ("impl", "config", "demo")

    def roles_in_words(self) -> str:
        """The roles of run.yaml, for messages and tables."""
        return ", ".join([*self.roles, *(f"{role} (optional)" for role in self.optional_roles)]) or "none"

    def flaws(self) -> list[str]:
        found = super().flaws()
        for field, names in (("roles", self.roles), ("optional_roles", self.optional_roles)):
            if not _are_names(names):
                return [*found, f"{field} is {names!r}, not a tuple of names"]
            if len(set(names)) != len(names):
                found.append(f"{field} names something twice: {names!r}")
        if both := set(self.roles) & set(self.optional_roles):
            found.append(f"roles and optional_roles both name {', '.join(sorted(both))}")
        return found


@dataclass(frozen=True)
class CallbackPlugin(Spec):
    """A callback: `impl` is a class with hook implementations, `config` the PluginConfig of its entry under `callbacks:`."""

    impl: str
    config: str

    targets: ClassVar[tuple[str, ...]] = ("impl", "config")


@dataclass(frozen=True)
class CommandPlugin(Spec):
    """A command of `fastvideo-distill`: `impl` is a `Command`, `help` one line about it."""

    help: str
    impl: str

    targets: ClassVar[tuple[str, ...]] = ("impl",)

    def flaws(self) -> list[str]:
        return super().flaws() + ([] if isinstance(self.help, str) and self.help else ["help is not a text"])


SPEC_TYPES: dict[Kind, type[Spec]] = {
    "models": ModelPlugin,
    "methods": MethodPlugin,
    "callbacks": CallbackPlugin,
    "commands": CommandPlugin,
}

SINGULAR: dict[Kind, str] = {
    "models": "model family",
    "methods": "method",
    "callbacks": "callback",
    "commands": "command",
}
"""What one plug-in of a kind is called in messages."""

FIRST_PARTY: dict[Kind, dict[str, str]] = {
    "models": {"wan": "fastvideo-wan", "ltx": "fastvideo-ltx"},
    "methods": {"dmd2": "fastvideo-dmd2", "finetune": "fastvideo-finetune"},
    "callbacks": {
        "ema": "fastvideo-core",
        **dict.fromkeys(("grad_norm", "throughput", "profiler", "early_stop"), "fastvideo-tools"),
    },
    "commands": {
        **dict.fromkeys(("train", "check", "plugins", "schema", "sample", "export", "tiny"), "fastvideo-core"),
        "preprocess": "fastvideo-data",
        **dict.fromkeys(("demo", "report", "doctor", "init", "new-plugin", "convert"), "fastvideo-tools"),
    },
}
"""Distributions of this project by the name of what they give."""
