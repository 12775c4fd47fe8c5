"""The context has one value for the whole batch."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "torch.ones(len(text), 1)",
            "torch.ones(1, 1)",
        ),
    ),
    checks=("test_the_context_holds_for_both_halves_of_guidance_and_for_dropped_captions",),
    says="context 'rate' has shape \\[1, 1\\] for 2 samples: dim 0 is the batch",
    setup=(
        (
            "adapter.py",
            '{"text": text}, {"text": negative})',
            '{"text": text}, {"text": negative}, {"rate": torch.ones(len(text), 1)})',
        ),
        (
            "adapter.py",
            'sigma, conditioning["text"])',
            'sigma, conditioning["text"] + batch.context["rate"])',
        ),
    ),
)
