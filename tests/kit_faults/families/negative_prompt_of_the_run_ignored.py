"""Training guides away from the empty text, whatever pipeline_config.negative_prompt says."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "family.py",
            'section(cfg).negative_text("", own)',
            '""',
        ),
    ),
    checks=("test_guided_predictions_are_those_of_the_model_s_own_pipeline",),
    says="held to what the model's own pipeline hands to scheduler\\.step",
)
