"""The sampler of a pipeline, whose tiny autoencoder reproduces nothing, gives blue for red."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "sampler.py",
            "shown(frames_of(pixels, self.folder)[0])",
            "shown(frames_of(pixels, self.folder)[0]).flip(-1)",
        ),
    ),
    checks=("test_decoded_videos_are_those_of_the_model_s_own_pipeline",),
    says="the model's own pipeline decodes it so: .*RGB, not BGR",
)
