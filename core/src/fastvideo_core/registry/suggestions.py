"""Turn an unknown plug-in name into what the user can do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastvideo_core.errors.suggestions import closest
from fastvideo_core.registry.specs import SINGULAR, Kind

FIRST_PARTY: dict[Kind, dict[str, str]] = {
    "models": {"wan": "fastvideo-wan", "ltx": "fastvideo-ltx"},
    "methods": {"dmd2": "fastvideo-dmd2", "finetune": "fastvideo-finetune"},
    "callbacks": dict.fromkeys(("ema", "grad_norm", "throughput", "profiler", "early_stop"), "fastvideo-core"),
    "commands": {
        **dict.fromkeys(("train", "check", "plugins", "schema", "sample", "export", "tiny"), "fastvideo-core"),
        "preprocess": "fastvideo-data",
        **dict.fromkeys(("demo", "report", "doctor", "init", "new-plugin", "convert"), "fastvideo-tools"),
    },
}
"""Distributions of this project by the name of what they give."""


def unknown_name(kind: Kind, name: str, known: Mapping[Kind, Sequence[str]]) -> str:
    """The fix for a name that no plug-in of this kind has; `known` are the names of all that are installed."""
    packages = FIRST_PARTY[kind]
    if name in packages:
        return f"pip install {packages[name]}"
    for other, names in known.items():
        if name in names:
            return f"{name!r} is a {SINGULAR[other]}, not a {SINGULAR[kind]}"
    guess = closest(name, [*known[kind], *packages])
    if not guess:
        return "see `fastvideo-distill plugins`, or install the package that brings it"
    return f"did you mean {guess!r}?" + ("" if guess in known[kind] else f" pip install {packages[guess]}")
