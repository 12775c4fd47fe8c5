"""The prompts that are sampled during training: FastVideo's validation JSON, or a text file with one prompt a line."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastvideo_core.config import limits
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.validator import ValidationPrompt, is_text
from fastvideo_core.errors import ConfigError, DataError, Problem, did_you_mean, foreign_file
from fastvideo_data.prompt_fit import CONDITIONS, FIRST, LAST
from fastvideo_data.text_files import read_text, text_lines

_INTEGERS = {
    "height": (1, limits.PIXELS),
    "width": (1, limits.PIXELS),
    "num_frames": (1, limits.FRAMES),
    "num_inference_steps": (1, limits.SAMPLING_STEPS),
    "seed": (0, 2**63 - 1),
}
"""Least and largest value by key."""
_UNUSED_WHEN_NULL = ("video_path",)
_NO_PROMPTS = "add at least one prompt"


def prompts_of_run(training: TrainingArgs) -> tuple[ValidationPrompt, ...]:
    """The prompts that a run samples while it trains; none where it does not validate.

    Raises:
        ConfigError: it names no file of prompts.
        DataError: as `read_validation_prompts`.
    """
    if not training.log_validation:
        return ()
    if training.validation_dataset_file is None:
        raise ConfigError(
            Problem(
                "validation needs prompts",
                where="training.validation_dataset_file",
                fix="name a JSON file of prompts, or set training.log_validation: false",
            )
        )
    return read_validation_prompts(training.validation_dataset_file)


def read_validation_prompts(path: str | Path) -> tuple[ValidationPrompt, ...]:
    """Read `{"data": [{"caption": ...}, ...]}` from a JSON file, or one prompt a line from a .txt file.

    Relative image paths are relative to the file.

    Raises:
        DataError: the file is missing, no JSON or empty; unknown keys, wrong types and missing images, all at once.
    """
    with foreign_file(path, "validation file"):
        return _read(Path(path))


def _read(path: Path) -> tuple[ValidationPrompt, ...]:
    if not path.is_file():
        raise DataError(Problem("there is no such validation file", str(path)))
    text = read_text(path)
    if path.suffix.lower() == ".txt":
        lines = enumerate(text_lines(text), 1)
        prompts = [ValidationPrompt(line, where=_where(f"{path}, line {n}", line)) for n, line in lines if line]
        if not prompts:
            raise DataError(Problem("the file holds no prompt", str(path), fix=_NO_PROMPTS))
        return tuple(prompts)
    return _from_json(path, text)


def _from_json(path: Path, text: str) -> tuple[ValidationPrompt, ...]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        where, allowed = f"{path}:{error.lineno}", '{"data": [...]}; prompts one a line belong into a .txt file'
        raise DataError(Problem(f"is no valid JSON: {error.msg}", where, allowed)) from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise DataError(Problem("has no list of prompts", str(path), allowed='{"data": [{"caption": "..."}, ...]}'))
    problems = [_unknown(key, ("data",), str(path)) for key in content if key != "data"]
    if not content["data"]:
        problems.append(Problem('"data" is empty', str(path), fix=_NO_PROMPTS))
    prompts = [_prompt(entry, f"{path}, data[{i}]", path.parent, problems) for i, entry in enumerate(content["data"])]
    if problems:
        raise DataError(problems)
    return tuple(prompt for prompt in prompts if prompt is not None)


def _prompt(entry: object, where: str, root: Path, problems: list[Problem]) -> ValidationPrompt | None:
    if not isinstance(entry, dict):
        problems.append(Problem(f"is {_kind(entry)}", where, allowed='an object {"caption": "...", ...}'))
        return None
    known = tuple(known.name for known in fields(ValidationPrompt) if known.name != "where")
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in known:
            if value is not None or key not in _UNUSED_WHEN_NULL:
                problems.append(_unknown(key, known, where))
        elif value is not None:
            problem = _check(key, value, root)
            if problem:
                problems.append(Problem(problem[0], f"{where}.{key}", allowed=problem[1]))
            elif key == CONDITIONS:
                value = tuple((root / one[FIRST], one["frame"], float(one.get("strength", 1))) for one in value)
            values[key] = root / value if key in (FIRST, LAST) and isinstance(value, str) else value
    if "caption" not in values:
        problems.append(Problem("has no caption", where, allowed='a text under "caption"'))
        return None
    return ValidationPrompt(**values, where=_where(where, values["caption"]))


def _where(place: str, caption: object) -> str:
    return f"{place} ({_kind(caption)})"


def _check(key: str, value: object, root: Path) -> tuple[str, str] | None:
    if key == "caption":
        good, allowed = is_text(value), "a text that is not empty, of whole characters"
    elif key == "negative_prompt":
        good, allowed = value == "" or is_text(value), "a text of whole characters, or the empty one"
    elif key in (FIRST, LAST):
        good, allowed = _is_file(value, root), "an existing image file"
    elif key == CONDITIONS:
        good = isinstance(value, list) and all(_is_condition(one, root) for one in value)
        allowed = 'a list of {"image_path": an existing image, "frame": from 0, "strength": above 0, at most 1}'
    else:
        least, most = _INTEGERS[key]
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        allowed = f"a whole number from {least} to {most}"
    return None if good else (f"is {_kind(value)}", allowed)


def _is_file(value: object, root: Path) -> bool:
    return isinstance(value, str) and os.path.isfile(root / value)


def _is_condition(entry: object, root: Path) -> bool:
    if not isinstance(entry, dict) or not {FIRST, "frame"} <= entry.keys() <= {FIRST, "frame", "strength"}:
        return False
    frame, strength = entry["frame"], entry.get("strength", 1)
    is_frame = type(frame) is int and 0 <= frame < limits.FRAMES
    return _is_file(entry[FIRST], root) and is_frame and type(strength) in (int, float) and 0 < strength <= 1


def _unknown(key: str, known: tuple[str, ...], where: str) -> Problem:
    fix = did_you_mean(key, known, otherwise="remove it")
    return Problem(f"unknown key {key!r}", where, allowed=", ".join(known), fix=fix)


def _kind(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]
