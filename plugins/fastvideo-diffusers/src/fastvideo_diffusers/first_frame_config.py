"""The option of families whose first latent frame may be given by keeping it clean; never imports torch."""

from __future__ import annotations

from pydantic import Field

from fastvideo_core.config.base import GuidedPipelineConfig
from fastvideo_core.errors import ConfigError, Problem


class FirstFrameConfig(GuidedPipelineConfig):
    """A family's options, this one among them."""

    first_frame_probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability, drawn anew for each sample, that its first latent frame is given (image-to-video "
        "training): it stays clean and has no loss. Samples of one latent frame are never conditioned.",
    )

    def check_no_first_frames(self) -> None:
        """No first frames are given in a run on trajectories, whose teacher was given none.

        Raises:
            ConfigError: some are.
        """
        if self.first_frame_probability > 0:
            where = "pipeline_config.first_frame_probability"
            found = "first frames are given, and the trajectories of the data are of videos from prompts alone"
            raise ConfigError(Problem(found, where, allowed="0", fix="remove it"))
