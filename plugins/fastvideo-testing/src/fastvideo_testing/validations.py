"""A validator that samples nothing and remembers what it was asked for."""

from __future__ import annotations

from fastvideo_core.contracts.tracker import Tracker
from fastvideo_core.contracts.validator import ValidationRequest


class Requests:
    """In place of a family's validator.

    Attributes:
        made: (step, request) of every call of `log_validation`.
    """

    def __init__(self) -> None:
        self.made: list[tuple[int, ValidationRequest]] = []

    def set_tracker(self, tracker: Tracker) -> None:
        """Nothing is logged."""

    def log_validation(self, step: int, request: ValidationRequest) -> None:
        self.made.append((step, request))
