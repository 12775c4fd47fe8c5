"""Options that do not exist are ignored."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "config.py",
            "    guidance_scale: float",
            '    model_config = {"extra": "ignore"}\n\n    guidance_scale: float',
        ),
    ),
    checks=("test_an_unknown_option_is_refused_by_name",),
    says="accepts the unknown option .* do not set extra=",
)
