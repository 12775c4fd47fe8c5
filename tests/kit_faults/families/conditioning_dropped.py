"""The caption never reaches the network."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            'sigma, conditioning["text"])',
            'sigma, torch.zeros_like(conditioning["text"]))',
        ),
    ),
    checks=("test_captions_reach_the_conditioning",),
    says="with other captions, but the same latents, predict the same: does predict_noise hand the network batch.conditioning",
)
