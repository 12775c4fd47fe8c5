"""A teacher's trajectories in a raw batch: states from pure noise to the clean end, as FastVideo's ODE data sets store them.

`trajectory_latents` [B, S, C, T, H, W] with `trajectory_timesteps` [B, S], and the sound of them, where there is some, as
`trajectory_audio_latents` [B, S, ...]; each may have a dim of one in front of S.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.errors import DataError, Problem
from fastvideo_data.raw_batch import place

TIMESTEPS = "trajectory_timesteps"
"""The stored tensor that has the timestep of each state."""
STATES_OF = {"vae_latent": "trajectory_latents", "audio_latent": "trajectory_audio_latents"}
"""Where the states of a clip's latents are stored, by the name of these."""

_FIX = "write the trajectories again: fastvideo-distill trajectories"


class UnpackLatents(Protocol):
    """What an adapter offers besides to who stores latents that a network made."""

    def unpack_latents(self, latents: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        """Latents [B, ...] of the batch's layout by the names under which clips store them (`vae_latent` [B, C, T, H, W], and
        `audio_latent` where there is sound), normalised as they are."""
        ...


def trajectory_tensors(wanted: Sequence[str], optional: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a run on trajectories reads in place of the tensors of clips that it would want, and of optional ones."""
    others = [name for name in wanted if name not in STATES_OF]
    sound = [STATES_OF["audio_latent"]] if "audio_latent" in (*wanted, *optional) else []
    return [*others, STATES_OF["vae_latent"], TIMESTEPS], sound


def trajectory_timesteps(raw_batch: Mapping[str, Any]) -> Tensor:
    """The timestep of every state, [B, S] float32.

    Raises:
        DataError: there are none, less than two of a sample, or they do not fall.
    """
    if TIMESTEPS not in raw_batch or STATES_OF["vae_latent"] not in raw_batch:
        found = "the data holds no trajectories"
        raise DataError(Problem(found, place(raw_batch), f"{STATES_OF['vae_latent']} and {TIMESTEPS}", _FIX))
    stored: Tensor = raw_batch[TIMESTEPS]
    times = stored.reshape(len(stored), -1).to(torch.float32)
    rows = times.tolist()
    if wrong := [row for row in rows if len(row) < 2 or not all(a > b for a, b in pairwise(row))]:
        shown = ", ".join(f"{t:g}" for t in wrong[0])
        allowed = "at least two, falling from noise to the clean end"
        raise DataError(Problem(f"{TIMESTEPS} are {shown}", place(raw_batch), allowed, _FIX))
    return times


def clean_ends(raw_batch: Mapping[str, Any]) -> dict[str, Any]:
    """The raw batch as if it were one of clips: the last state of each trajectory as its latents.

    Raises:
        DataError: as `trajectory_timesteps`, and where states and timesteps are not equally many.
    """
    ends = {name: states[:, -1] for name, states in _states(raw_batch).items()}
    return {**raw_batch, **ends, **_normalised(raw_batch)}


def all_states(raw_batch: Mapping[str, Any]) -> dict[str, Any]:
    """A raw batch of clips [B S, ...]: every state of the first sample, then of the second, and so on; errors as `clean_ends`."""
    count = trajectory_timesteps(raw_batch).shape[1]
    flat = {name: states.flatten(0, 1) for name, states in _states(raw_batch).items()}
    info = [row for row in raw_batch.get("info", []) for _ in range(count)]
    return {**flat, **_normalised(raw_batch), "info": info}


def _states(raw_batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """[B, S, ...] by the name of a clip's latents."""
    times = trajectory_timesteps(raw_batch)
    found = {}
    for name, stored_as in STATES_OF.items():
        if stored_as not in raw_batch:
            continue
        states: Tensor = raw_batch[stored_as]
        if states.ndim > 2 and states.shape[1] == 1:
            states = states[:, 0]
        if states.ndim < 3 or states.shape[1] != times.shape[1]:
            found_shape = f"{stored_as} has shape {list(raw_batch[stored_as].shape[1:])}"
            allowed = f"[S, ...] or [1, S, ...] with S = {times.shape[1]}, as there are timesteps"
            raise DataError(Problem(found_shape, place(raw_batch), allowed, _FIX))
        found[name] = states
    return found


def _normalised(raw_batch: Mapping[str, Any]) -> dict[str, bool]:
    """States are what the network sees unless the file says otherwise."""
    return {f"{name}_normalised": raw_batch.get(f"{states}_normalised", True) for name, states in STATES_OF.items()}
