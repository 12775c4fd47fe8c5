"""log_validation takes for granted that there is a validator."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "if self.validator is not None:", "if True:"),),
    checks=("test_validations_sample_the_student",),
    says="self.validator is None where nothing can be sampled",
)
