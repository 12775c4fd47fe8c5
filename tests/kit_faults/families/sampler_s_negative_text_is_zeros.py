"""The sampler guides away from zeros, training from the empty text."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            ('text, negative = embed(prompt.caption).to(self._device), embed("").to(self._device)'),
            ("text = embed(prompt.caption).to(self._device)\n        negative = torch.zeros_like(text)"),
        ),
    ),
    checks=("test_guidance_is_sampled_as_it_is_trained",),
    says=("with the negative prompt.* negative text, time, mask and frame rate must be made alike.*differ: text"),
)
