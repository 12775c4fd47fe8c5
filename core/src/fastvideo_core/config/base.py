"""Strict, frozen config classes: the base of core's own sections and of every plug-in's section."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from fastvideo_core.errors import Problem

if TYPE_CHECKING:
    from fastvideo_core.config.run import RunConfig

# Tuples that a YAML list is accepted for; its items stay strict.
FloatPair = Annotated[tuple[float, float], Strict(False)]
FloatTuple = Annotated[tuple[float, ...], Strict(False)]
IntTuple = Annotated[tuple[int, ...], Strict(False)]
StrTuple = Annotated[tuple[str, ...], Strict(False)]

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}/]*\})")


def path_text(value: str) -> str:
    """A path with `~` as the home folder; raises ValueError where no file can have it as its path."""
    path = os.path.expanduser(value)
    if _CONTROLS.search(path):
        raise ValueError("a path has no control characters")
    longest = max(map(len, os.fsencode(path).split(b"/")))
    if longest > 255 or len(path) > 4000:
        raise ValueError(f"no system takes a path of {len(path)} characters, {longest} of them between two slashes")
    if (variable := _VARIABLE.search(path)) is not None and not os.path.exists(path):
        raise ValueError(f"variables such as {variable[0]} are not expanded here: write the path out")
    if path.startswith("~") and not os.path.exists(path):
        raise ValueError(f"there is no home folder {path.partition('/')[0]}: write the path out")
    return path


PathText = Annotated[str, Field(min_length=1), AfterValidator(path_text)]
"""A path, relative to the current working directory; `~` is the home folder, and variables are refused."""


class StrictModel(BaseModel):
    """Values keep the type in which they were written: no "3" for 3, no true for 1, no unknown keys, no NaN.

    Whole numbers are accepted where a number is asked for. Instances are immutable.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, protected_namespaces=()
    )


class PluginConfig(StrictModel):
    """Base class of a plug-in's typed section (`pipeline_config`, `method_config` or one entry of `callbacks`).

    Declare fields with `Field(default, description=..., ge=...)`: `fastvideo-distill schema` shows them and error
    messages quote their ranges. Because of strictness a YAML list only becomes a tuple with
    `Annotated[tuple[...], Strict(False)]`; `FloatPair`, `FloatTuple`, `IntTuple` and `StrTuple` are such. Checks within
    the section are pydantic validators that raise ValueError; checks across sections go into `check_run`.
    """

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """Problems of this section in the light of the whole run, each with the dotted key it is about.

        Keys count from the top of run.yaml ("method_config.dmd_denoising_steps[0]", "roles.critic"). `Problem.where` is
        filled in by the caller with file and line.
        """
        return []


def plain(value: Any) -> Any:
    """`value` as YAML and JSON know it: models become dicts, tuples become lists."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
