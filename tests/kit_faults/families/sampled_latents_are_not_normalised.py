"""The latents that a sampled video brings are the autoencoder's own, not the normalised ones of training."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "sampler.py",
            "    def load_vae(",
            "    def unpacked(self, latents, size):\n        return denormalise(latents, self.folder)[0]\n\n    def load_vae(",
        ),
    ),
    checks=("test_a_video_brings_the_latents_that_were_decoded",),
    says="are the normalised latents .* that the decoder was given",
)
