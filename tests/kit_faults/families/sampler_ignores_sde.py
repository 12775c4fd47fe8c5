"""Few-step sampling keeps its noise where fresh noise is asked for."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            'request.sampler_kind or "ode"',
            '"ode"',
        ),
    ),
    checks=("test_sde_draws_fresh_noise_between_steps",),
    says="pass the kind on to the rollout",
)
