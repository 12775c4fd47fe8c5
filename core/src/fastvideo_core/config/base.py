"""The classes that the sections of run.yaml derive from, core's own and those of plug-ins, and the types of their values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from fastvideo_core.config import limits
from fastvideo_core.diffusion.denoising_steps import denoising_steps_problem
from fastvideo_core.errors import Problem

if TYPE_CHECKING:
    from fastvideo_core.config.run import RunConfig

Factor = Annotated[float, Field(gt=0, le=limits.FACTOR)]

# Tuples that a YAML list is accepted for; its items stay strict.
FloatPair = Annotated[tuple[float, float], Strict(False)]
"""An option of two numbers."""
FloatTuple = Annotated[tuple[float, ...], Strict(False)]
"""An option of numbers."""
IntTuple = Annotated[tuple[int, ...], Strict(False)]
"""An option of whole numbers."""
StrTuple = Annotated[tuple[str, ...], Strict(False)]
"""An option of texts."""


def _is_a_schedule(steps: tuple[float, ...]) -> tuple[float, ...]:
    if problem := denoising_steps_problem(steps):
        raise ValueError(problem)
    return steps


DenoisingSteps = Annotated[FloatTuple, AfterValidator(_is_a_schedule)]
"""The schedule of a few-step student, as `FewStepSchedule.from_denoising_steps` reads it."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
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


def is_hub_id(path: str) -> bool:
    """Whether a path that does not exist may be an id on the model hub (org/name): not where its first part is a folder here."""
    return _HUB_ID.fullmatch(path) is not None and not Path(path.partition("/")[0]).is_dir()


class StrictModel(BaseModel):
    """Immutable, and strict: no "3" for 3, no true for 1, no unknown keys, no NaN; but 3 where a number is asked for."""

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
        """Problems of this section in the light of the whole run, each with its key in run.yaml ("method_config.steps[0]").

        The caller fills in `Problem.where`, with file and line.
        """
        return []


class MethodConfig(PluginConfig):
    """Base class of `method_config` sections; `init` writes out the `pipeline_options` and `training_options` of its runs."""

    pipeline_options: ClassVar[Mapping[str, Any]] = {}
    training_options: ClassVar[Mapping[str, Any]] = {}

    @staticmethod
    def wrongly_trainable(cfg: RunConfig, **wanted: bool) -> list[tuple[str, Problem]]:
        """A problem for each of these roles that trains where it must not, or the other way round."""
        problems = []
        for role, trains in wanted.items():
            if role in cfg.roles and cfg.roles[role].trainable is not trains:
                found = f"the {role} of {cfg.recipe.method} must {'be' if trains else 'not be'} trainable"
                problems.append((f"roles.{role}.trainable", Problem(found, fix=f"set it to {str(trains).lower()}")))
        return problems

    @staticmethod
    def without_sampler_kind(cfg: RunConfig) -> list[tuple[str, Problem]]:
        """A problem where the family has no `sampler_kind`, which a student of few steps needs."""
        if isinstance(cfg.pipeline_config, PipelineConfig):
            return []
        found = f"{cfg.recipe.method} needs a sampler_kind, which {type(cfg.pipeline_config).__name__} does not have"
        fix = f"the package of {cfg.recipe.family} must derive its options from fastvideo_core.PipelineConfig"
        return [("recipe.family", Problem(found, fix=fix))]

    def without_use(self, found: str, names: Sequence[str], fix: str = "set it") -> list[tuple[str, Problem]]:
        """A problem for each of these options that is given and is not its default."""
        return [
            (f"method_config.{name}", Problem(found, fix=f"{fix}, or remove this"))
            for name in names
            if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].default
        ]

    attn_kind: Literal["dense", "vsa"] = Field(default="dense", description="The student's attention; few offer vsa")


PUBLISHED = "default"
"""The value of `negative_prompt` that stands for the text that the model's makers publish."""


class PipelineConfig(PluginConfig):
    """Base class of `pipeline_config` sections."""

    flow_shift: Factor | None = Field(default=None, description="Timestep shift, in all uses; null: the model's")
    sampler_kind: Literal["ode", "sde"] = Field(default="ode", description="Few steps keep noise, or redraw it (sde)")

    def of_role(self, role: str) -> PipelineConfig:
        """The section as it holds for sampling or exporting this role of the run."""
        return self


class FewStepConfig(MethodConfig):
    """Base class of `method_config` sections of methods whose student is sampled in few steps, beside a teacher or alone."""

    validate_teacher: bool = Field(default=True, description="Sample the teacher at the first validation, too")

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        problems = self.without_sampler_kind(cfg)
        if cfg.training.log_validation and not (self.validate_teacher and "teacher" in cfg.roles):
            why = "validate_teacher is false" if "teacher" in cfg.roles else "the run has no teacher"
            problems += [
                (f"training.{name}", Problem(f"nothing is sampled with it: {why}", fix="remove it"))
                for name in ("validation_sampling_steps", "validation_guidance_scale")
                if name in cfg.training.model_fields_set
            ]
        return problems


class GuidedPipelineConfig(PipelineConfig):
    """Of families whose guidance takes a negative prompt."""

    negative_prompt: str = Field(
        default=PUBLISHED, description="What guidance leads away from; `default`: the model's own."
    )

    def negative_text(self, published: str, own: str | None = None) -> str:
        """The negative prompt in full: `own` of one prompt, else the run's; `default` stands for `published`."""
        text = self.negative_prompt if own is None else own
        return published if text == PUBLISHED else text


def plain(value: Any) -> Any:
    """`value` as YAML and JSON know it: models become dicts, tuples become lists, paths become text."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
