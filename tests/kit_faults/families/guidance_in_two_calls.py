"""Guidance calls the network once for each half."""

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
                "        text = self.predict_x0(handle, noisy_latents, t, batch, "
                "conditional=True)\n"
                "        nothing = self.predict_x0(handle, noisy_latents, t, batch, "
                "conditional=False)\n"
                "        return nothing + guidance_scale * (text - nothing)\n"
                "\n"
                "    def extract_features("
            ),
        ),
    ),
    checks=("test_guidance_is_one_call_and_none_too_many",),
    says="runs the network 2 times, not once",
)
