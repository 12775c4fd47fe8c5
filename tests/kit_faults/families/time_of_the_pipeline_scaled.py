"""A network of a diffusers pipeline is told the noise level from 0 to 1, and its pipeline tells it from 0 to 1000."""

from tests.kit_faults.fault import DIFFUSERS_FAMILY, Fault

FAULT = Fault(
    DIFFUSERS_FAMILY,
    (("adapter.py", "timestep=levels,", "timestep=levels / 1000,"),),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="is the network told the time as the pipeline tells it \\(0 to 1, or 0 to 1000",
)
