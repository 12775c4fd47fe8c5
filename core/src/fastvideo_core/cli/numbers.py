"""Numbers on the command line, with argparse's own message where they are none."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from fastvideo_core.config import limits


def finite(text: str) -> float:
    """A number that is not NaN, and not larger than what can be meant."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    if abs(value) > limits.FACTOR:
        raise argparse.ArgumentTypeError(f"{text!r} is above {limits.FACTOR:.0f}, the largest number that it takes")
    return value


def up_to(most: int) -> Callable[[str], int]:
    """A whole number that is not above `most`; whether it is too small is for the command to say."""

    def number(text: str) -> int:
        value = int(text) if len(text) <= _DIGITS else most + 1
        if value > most:
            raise argparse.ArgumentTypeError(f"{text[:_DIGITS]!r} is above {most}, the largest number that it takes")
        return value

    number.__name__ = "whole number"  # as argparse names it where `int` refuses
    return number


_DIGITS = 20


def seed(text: str) -> int:
    """A whole number from 0 up to 2^63."""
    if not text.isdecimal() or len(text) > _DIGITS or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {2**63 - 1}")
    return int(text)
