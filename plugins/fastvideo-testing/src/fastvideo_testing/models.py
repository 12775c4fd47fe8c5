"""The conformance suite of model families: subclass it in a family's own tests."""

from __future__ import annotations

from fastvideo_testing.family_batches import BatchChecks
from fastvideo_testing.family_networks import NetworkChecks
from fastvideo_testing.family_pipelines import PipelineChecks
from fastvideo_testing.family_round_trips import RoundTripChecks
from fastvideo_testing.family_tangents import TangentChecks
from fastvideo_testing.family_targets import TargetChecks


class ModelPluginSuite(BatchChecks, NetworkChecks, PipelineChecks, RoundTripChecks, TangentChecks, TargetChecks):
    """What every family must do; needs no method (the toy method trains it).

        class TestMyFamily(ModelPluginSuite):
            plugin = "my-family"

    Attributes:
        config: the `pipeline_config` that is tested.
        path: the roles' `path` where the family has no `tiny`; None uses what `tiny` writes.
        tiny: options of `tiny`, for a family that makes several kinds of pipelines: a suite for each.
        clip: size of the clips that are preprocessed; None takes the smallest that the encoder's geometry allows.
        training: options of `training` that the family needs beside the suite's.
        pipeline_sign: what the model's own pipeline hands to `scheduler.step` is so many times `predict_noise`: 1 or -1.
        pipeline_options: what that pipeline is called with besides prompt, size, steps and guidance.
        tolerance: largest deviation, relative to the largest value, between two ways to the same result.
    """
