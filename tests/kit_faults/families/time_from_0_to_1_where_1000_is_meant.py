"""The network, which takes time from 0 to 1000, is told it from 0 to 1."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "adapter.py",
            "timestep=self.num_train_timesteps - levels",
            "timestep=(self.num_train_timesteps - levels) / 1000",
        ),
    ),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="is the network told the time as the pipeline tells it \\(0 to 1, or 0 to 1000",
)
