"""What an author can get wrong with the adapter and the sampler of a diffusers pipeline is told in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastvideo_core import RoleHandle, ValidationRequest
from fastvideo_core.errors import ContractError
from fastvideo_diffusers.adapter import PipelineAdapter
from fastvideo_diffusers.sampler import PipelineSampler


def bare(base: type) -> Any:
    """An instance that no family has filled in."""
    kind: Any = type(f"Bare{base.__name__}", (base,), {})
    kind.__abstractmethods__ = frozenset()
    return object.__new__(kind)


def test_a_request_without_steps_and_timesteps_is_the_methods_mistake() -> None:
    sampler = bare(PipelineSampler)
    request = ValidationRequest(RoleHandle("student", {}), Path("out"))
    with pytest.raises(ContractError, match=r"(?s)neither sampling_steps nor sampling_timesteps.*many_step_requests"):
        sampler.many_steps(request)


def test_an_adapter_that_samples_prepares_no_batch() -> None:
    adapter = bare(PipelineAdapter)
    adapter._training = None
    with pytest.raises(ContractError, match=r"(?s)BarePipelineAdapter: an adapter .* without `training`.*cfg.training"):
        adapter.prepare_batch({})
