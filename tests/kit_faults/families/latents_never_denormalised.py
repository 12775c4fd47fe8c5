"""The sampler hands its autoencoder normalised latents."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "sampler.py",
            "self.autoencoder().decode(denormalise(latents, self.folder), return_dict",
            "self.autoencoder().decode(latents * 0.7 + 0.1, return_dict",
        ),
    ),
    checks=("test_latents_of_a_clip_are_decoded_to_the_clip",),
    says="normalised twice, or taken back not at all",
)
