"""What an option of another trainer is called here, for the hint beside an unknown key; the names are in foreign_names.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fastvideo_core.config.training import TrainingArgs

_SECTIONS = ("training", "roles", "recipe.method", "pipeline_config", "method_config")


@dataclass(frozen=True)
class Foreign:
    """What another trainer means by a name.

    Attributes:
        trainer: whose name it is; empty for an option of ours that stands in another section.
        target: the dotted key here; empty where it is not offered.
        note: what is different, or why it is not offered.
    """

    trainer: str
    target: str
    note: str

    def fix(self, name: str) -> str:
        """What to do about the name."""
        method = next(
            (method for method, targets in names()["of_method"].items() if self.target.startswith(tuple(targets))), None
        )
        notes = [*([self.note] if self.note else []), *([] if method is None else [f"of the method {method}"])]
        note = f" ({'; '.join(notes)})" if notes else ""
        if not self.trainer:
            return f"it belongs to another section: {self.target}"
        if not self.target:
            return f"remove it: {self.trainer}'s {name} is not offered here{note}"
        return f"{self.trainer}'s {name} is {self.target} here{note}"


def foreign_name(key: object, section: str = "training") -> Foreign | None:
    """What a key means that is not known where it stands; None when no trainer here or elsewhere has it.

    Args:
        section: where it stands, by dotted key; whole sections of other trainers are known at the top and in `training` alone.
    """
    name = _plain(str(key))
    if name in _OWN:
        return Foreign("", _OWN[name], "")
    found = _table().get(name)
    inside = section not in ("run.yaml", "training")
    return None if inside and found is not None and found.target in _SECTIONS else found


def is_fastvideo(data: Any) -> bool:
    """Whether a YAML file's data is a run of FastVideo's trainer: models and a method by `_target_`."""
    if not isinstance(data, Mapping) or "recipe" in data:
        return False
    models = data.get("models")
    sections = [data.get("method"), *(models.values() if isinstance(models, Mapping) else ())]
    return any(isinstance(section, Mapping) and "_target_" in section for section in sections)


def _plain(name: str) -> str:
    return name.lower().lstrip("-").replace("-", "_")


@cache
def names() -> dict[str, Any]:
    """foreign_names.yaml: `renamed`, `not_offered` and `of_method`, as told there."""
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return found


@cache
def _table() -> dict[str, Foreign]:
    table: dict[str, Foreign] = {}
    for trainer, renamed in names()["renamed"].items():
        for name, value in renamed.items():
            target, note = (value, "") if isinstance(value, str) else value
            table.setdefault(_plain(name), Foreign(trainer, target, note))
    for trainer, reasons in names()["not_offered"].items():
        for note, listed in reasons.items():
            for name in listed.split():
                table.setdefault(_plain(name), Foreign(trainer, "", note))
    return table


_OWN = {_plain(name): f"training.{name}" for name in TrainingArgs.model_fields}
_OWN |= {name: f"roles.<role>.{name}" for name in ("trainable", "checkpoint_role", "lora")}
_OWN |= {name: f"callbacks.{name}" for name in ("ema", "grad_norm", "throughput", "profiler", "early_stop")}
_OWN["sampler_kind"] = "pipeline_config.sampler_kind"
