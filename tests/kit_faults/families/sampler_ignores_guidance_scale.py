"""The sampler does not guide."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "guidance_scale=request.guidance_scale",
            "guidance_scale=1.0",
        ),
    ),
    checks=("test_guidance_is_sampled_as_it_is_trained",),
    says="each step calls the network on one half only: pass the scale on",
)
