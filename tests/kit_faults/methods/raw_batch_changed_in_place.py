"""The raw batch's latents are scaled in place."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)\n",
            (
                '        batch["vae_latent"].mul_(0.5)\n'
                "        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)\n"
            ),
        ),
    ),
    checks=("test_batches_stay_as_they_are",),
    says="changed batch.vae_latent of the raw batch in place",
)
