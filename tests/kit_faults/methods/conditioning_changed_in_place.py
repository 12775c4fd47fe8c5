"""The prepared conditioning is scaled in place."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)\n",
            (
                "        prepared = self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)\n"
                "        for text in prepared.conditioning.values():\n"
                "            text.mul_(0.5)\n"
            ),
        ),
    ),
    checks=("test_batches_stay_as_they_are",),
    says="changed batch.conditioning.condition in place.*hands the same text",
)
