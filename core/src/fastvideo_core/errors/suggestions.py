"""Which known name somebody meant who wrote another one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any


def closest(name: Any, known: Iterable[str]) -> str:
    """The known name of which `name` is a slip of the pen; empty when none is.

    Names are compared word by word: one with another word in it (max_train_epochs, cosine_with_min_lr) means something else.
    """
    words = _words(name)
    joined = "".join(words)
    for candidate in difflib.get_close_matches(str(name).lower(), list(dict.fromkeys(known)), n=3, cutoff=0.6):
        others = _words(candidate)
        alike = len(words) == len(others) and all(map(_alike, words, others))
        if alike or _alike(joined, "".join(others), least=0.95):
            return candidate
    return ""


def did_you_mean(name: Any, known: Iterable[str], otherwise: str = "") -> str:
    """ "did you mean 'wan'?", or `otherwise` when no name is close."""
    guess = closest(name, known)
    return f"did you mean {guess!r}?" if guess else otherwise


def _words(name: Any) -> list[str]:
    return re.split(r"[_\W]+", str(name).lower())


def _alike(one: str, other: str, least: float = 0.65) -> bool:
    return difflib.SequenceMatcher(None, one, other).ratio() >= least
