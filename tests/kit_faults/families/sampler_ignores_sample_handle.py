"""The sampler samples with the network that it was made with, whatever role is asked for."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "device: torch.device) -> None:\n        self._adapter",
            ("device: torch.device, handle=None) -> None:\n        self._handle = handle\n        self._adapter"),
        ),
        (
            "sampler.py",
            "request.sample_handle",
            "self._handle",
        ),
        (
            "family.py",
            "MineSampler(_adapter(pipeline_config), device)",
            "MineSampler(_adapter(pipeline_config), device, handle)",
        ),
    ),
    checks=("test_few_steps_are_sampled_as_they_are_trained",),
    says="it must call request\\.sample_handle",
)
