"""Guidance makes its batch of both halves itself, and forgets what the network is conditioned on besides."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "    def extract_features(",
            (
                "    def predict_x0_guided(self, handle, noisy_latents, t, batch, *, "
                "guidance_scale):\n"
                "        both = batch.with_both_conditionings()\n"
                '        both.context["rate"] = torch.zeros(len(both.latents), 1)\n'
                "        twice = torch.cat([noisy_latents] * 2), torch.cat([t] * 2)\n"
                "        text, nothing = self.predict_x0(handle, *twice, both, "
                "conditional=True).chunk(2)\n"
                "        return nothing + guidance_scale * (text - nothing)\n"
                "\n"
                "    def extract_features("
            ),
        ),
    ),
    checks=("test_guidance_is_one_call_and_none_too_many",),
    says="both halves see the same latents, time and context",
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
