"""What makes a list of denoising steps valid; free of torch, so that reading a configuration stays instant."""

from collections.abc import Sequence
from itertools import pairwise

NOISE_AXIS = 1000
"""The scale of denoising steps in run.yaml, and of every family that they can be given to."""


def denoising_steps_problem(steps: Sequence[float]) -> str:
    """What is wrong with a list of denoising steps, in a sentence; empty when it is fine."""
    calls = [step for step in steps if step != 0]
    if not calls:
        return "needs at least one step above 0"
    if any(step < 0 or step > NOISE_AXIS for step in steps):
        return f"every step must be in 0..{NOISE_AXIS}"
    if any(later >= earlier for earlier, later in pairwise(steps)):
        return "steps must fall strictly, from noise to clean"
    if calls[0] < NOISE_AXIS - 1:
        return f"the first step must be {NOISE_AXIS} or {NOISE_AXIS - 1} (pure noise)"
    if len(calls) > 1 and calls[1] >= NOISE_AXIS - 1:
        return f"only the first step may be pure noise ({NOISE_AXIS} or {NOISE_AXIS - 1})"
    return ""
