"""The network, which counts time from noise to data, is told the noise level."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "adapter.py",
            "timestep=self.num_train_timesteps - levels",
            "timestep=levels",
        ),
    ),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="the network's time runs the other way",
)
