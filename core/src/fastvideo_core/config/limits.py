"""The largest numbers that can be meant: a typing error beyond them is refused before it becomes a hanging or killed process."""

from __future__ import annotations

STEPS = 10**9
"""Optimizer steps, and all that is counted in them."""

SAMPLING_STEPS = 10_000
"""Steps in which one video is sampled."""

SAMPLES = 2**16
"""Samples that one forward pass takes, and passes that one step takes."""

PROCESSES = 2**16
"""Processes of a run, on all its machines."""

THREADS = 1024
"""Threads of one process."""

PIXELS = 2**14
"""Height or width of a video."""

FRAMES = 2**16
"""Frames of a video."""

RANK = 2**16
"""Inner dimension of an adapter."""

FACTOR = 1e9
"""A weight, rate, scale or norm: what float32 still multiplies without infinities."""
