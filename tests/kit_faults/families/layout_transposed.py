"""Latents are trained on with height and width swapped."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            'raw_batch["vae_latent"].to(',
            'raw_batch["vae_latent"].transpose(-1, -2).to(',
        ),
    ),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="is the layout another one than the network's",
)
