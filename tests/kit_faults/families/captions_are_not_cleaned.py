"""Captions are encoded as they are typed, which the model's pipeline cleans before."""

from tests.kit_faults.fault import DIFFUSERS_FAMILY, Fault

FAULT = Fault(
    DIFFUSERS_FAMILY,
    (("family.py", "            clean=prompt_clean,\n", ""),),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="are captions cleaned as the pipeline cleans them",
)
