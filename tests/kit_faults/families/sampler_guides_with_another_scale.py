"""The sampler guides more than it is asked to."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "guidance_scale=request.guidance_scale",
            "guidance_scale=1 + request.guidance_scale",
        ),
    ),
    checks=("test_guidance_is_sampled_as_it_is_trained",),
    says="w = request\\.guidance_scale",
)
