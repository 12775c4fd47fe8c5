"""training.VSA_sparsity is not passed on."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "self.prepare_batch(batch, current_vsa_sparsity=current_vsa_sparsity)",
            "self.prepare_batch(batch)",
        ),
    ),
    checks=("test_the_kind_of_attention_is_passed_on_or_refused",),
    says="VSA_sparsity` does nothing: pass .*current_vsa_sparsity to prepare_batch",
)
