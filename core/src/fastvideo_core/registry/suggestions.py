"""Turn an unknown plug-in name into what the user can do about it."""

from __future__ import annotations

from collections.abc import Sequence

from fastvideo_core.errors.suggestions import did_you_mean
from fastvideo_core.registry.specs import SINGULAR, Kind

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


def unknown_name(kind: Kind, name: str, installed: Sequence[str], other_kinds: Sequence[tuple[Kind, str]]) -> str:
    """The fix for a name that no plug-in of this kind has."""
    package = FIRST_PARTY[kind].get(name)
    if package is not None:
        return f"pip install {package}"
    for other, known in other_kinds:
        if known == name:
            return f"{name!r} is a {SINGULAR[other]}, not a {SINGULAR[kind]}"
    guess = did_you_mean(name, [*installed, *FIRST_PARTY[kind]])
    missing = next(
        (p for known, p in FIRST_PARTY[kind].items() if f"{known!r}" in guess and known not in installed), None
    )
    if missing is not None:
        return f"{guess} pip install {missing}"
    return guess or "see `fastvideo-distill plugins`, or install the package that brings it"
