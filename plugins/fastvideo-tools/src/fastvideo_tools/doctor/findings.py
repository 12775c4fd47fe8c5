"""What a check of the machine has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "bad"]
"""note: works, but not with everything; bad: something that is installed or needed cannot work."""


@dataclass(frozen=True)
class Finding:
    """One line of `fastvideo-distill doctor`.

    Attributes:
        about: what was looked at.
        fix: what to do; empty where there is nothing to do.
    """

    about: str
    state: State
    found: str
    fix: str = ""
