"""Padding of the text is not masked."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "adapter.py",
            'encoder_attention_mask=conditioning["mask"]',
            'encoder_attention_mask=torch.ones_like(conditioning["mask"])',
        ),
    ),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="text, its padding and its mask",
)
