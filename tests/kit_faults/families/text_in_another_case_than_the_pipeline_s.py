"""Captions and prompts are lowered alike before they are encoded, which the model's pipeline does not do."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "text.py",
            "return super().encode_one(caption)",
            "return super().encode_one(caption.lower())",
        ),
    ),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="are text, its padding and its mask those of the pipeline",
)
