"""The requests that `training.validation_sampling_steps` and `validation_guidance_scale` stand for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import ValidationRequest


def many_step_requests(
    training: TrainingArgs, handle: RoleHandle, output_dir: Path, *, label: str = ""
) -> Iterator[ValidationRequest]:
    """One request for every number of steps at every guidance scale; labels tell them apart where there are several."""
    pairs = list(product(training.validation_sampling_steps, training.validation_guidance_scale))
    for steps, scale in pairs:
        parts = [label] if label else []
        parts += [f"steps{steps}-cfg{scale:g}"] if len(pairs) > 1 else []
        yield ValidationRequest(
            sample_handle=handle,
            output_dir=output_dir,
            sampling_steps=steps,
            guidance_scale=scale,
            label="-".join(parts),
            fixed_steps=len(pairs) > 1,
        )
