"""When the watch speaks, and what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping

PAGE = "docs/quality-watch.md"

_MEANINGS: Mapping[tuple[str, bool], str] = {
    ("mean", True): "brightness or colours have moved",
    ("spread", True): "over-saturated or noisy",
    ("spread", False): "washed out",
    ("variation", True): "more unlike each other than they should be",
    ("variation", False): "all alike",
    ("seeds", True): "more unlike each other than they should be",
    ("seeds", False): "the same whatever the seed",
    ("motion", True): "flickering or noisy",
    ("motion", False): "static",
}
"""By measure, and whether it is more than it should be."""

_NAMES = {"mean": "the mean", "spread": "the spread", "variation": "the variation between samples"}
_NAMES |= {"seeds": "the variation between seeds", "motion": "the motion"}


def worst(measures: Mapping[str, float]) -> tuple[str, float]:
    """The measure of `drift` that is furthest from 0, and how far it is, >= 0."""
    name = max(measures, key=lambda one: abs(measures[one]))
    return name, abs(measures[name])


def is_off(drift: float, best: float, threshold: float) -> bool:
    """Whether a drift is `threshold` times off beside the best one so far; one that is not finite always is."""
    return not math.isfinite(drift) or drift > best + math.log(threshold)


def described(measures: Mapping[str, float], whose: str) -> str:
    """What is furthest off, by how much and what that looks like: "the spread is 2.1 times that of the teacher: washed out"."""
    name, amount = worst(measures)
    if not math.isfinite(amount):
        return "the samples are not finite"
    meaning = _MEANINGS[name, measures[name] > 0]
    if name == "mean":
        return f"{_NAMES[name]} is {amount:.2g} standard deviations from that of {whose}: {meaning}"
    return f"{_NAMES[name]} is {math.exp(measures[name]):.2g} times that of {whose}: {meaning}"


def advice(roles: Mapping[str, object]) -> str:
    """What to change in a run of these roles."""
    if "critic" in roles:
        return (
            "lower the student's learning_rate, or let the critic keep up (its learning_rate, generator_update_interval); "
            f"{PAGE} says which"
        )
    return f"lower the student's learning_rate, or go on from the best checkpoint; {PAGE} says more"


REFERENCE_ADVICE = f"look at the guidance scale, negative_prompt and flow_shift of this run; {PAGE} says how"
