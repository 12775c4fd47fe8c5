"""What an option of another trainer is called here, for the hint beside an unknown key; the names are in foreign_names.yaml."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fastvideo_core.config.training import TrainingArgs

_SECTIONS = ("training", "roles", "recipe.method", "pipeline_config", "method_config")


def fix_of_foreign_name(key: object, section: str = "training") -> str:
    """What to do about a key that is not known in the section where it stands; "" when no trainer here or elsewhere has it."""
    name = _plain(str(key))
    if name in _OWN:
        return f"it belongs to another section: {_OWN[name]}"
    trainer, target, note = _table().get(name, ("", "", ""))
    # Whole sections of other trainers are known at the top and in `training` alone.
    if not trainer or (target in _SECTIONS and section not in ("run.yaml", "training")):
        return ""
    told = f" ({note})" if note else ""
    if not target:
        return f"remove it: {trainer}'s {key} is not offered here{told}"
    return f"{trainer}'s {key} is {target} here{told}"


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
def _table() -> dict[str, tuple[str, str, str]]:
    """By name, whose it is, the dotted key here ("" where it is not offered), and what is different or why not."""
    table: dict[str, tuple[str, str, str]] = {}
    names = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    for trainer, renamed in names["renamed"].items():
        for name, value in renamed.items():
            target, note = (value, "") if isinstance(value, str) else value
            table.setdefault(_plain(name), (trainer, target, note))
    for trainer, reasons in names["not_offered"].items():
        for note, listed in reasons.items():
            for name in listed.split():
                table.setdefault(_plain(name), (trainer, "", note))
    return table


_OWN = {_plain(name): f"training.{name}" for name in TrainingArgs.model_fields}
_OWN |= {name: f"roles.<role>.{name}" for name in ("trainable", "checkpoint_role", "lora", "train_modules")}
_OWN |= {
    name: f"callbacks.{name}" for name in ("ema", "grad_norm", "throughput", "profiler", "early_stop", "quality_watch")
}
_OWN["sampler_kind"] = "pipeline_config.sampler_kind"
