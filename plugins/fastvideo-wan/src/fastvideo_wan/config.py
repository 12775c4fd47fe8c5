"""The `pipeline_config:` section of a run with Wan; never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fastvideo_core.config.sections import PipelineConfig
from fastvideo_core.config.video_limits import VideoLimits
from fastvideo_core.errors import Problem

if TYPE_CHECKING:
    from fastvideo_core.adapter import LatentsSource
    from fastvideo_core.components import RoleOutline
    from fastvideo_core.config.run import RunConfig
    from fastvideo_core.data.encoder import EncoderIdentity
    from fastvideo_core.data.validation import ValidationPrompt

SIZE_MULTIPLE = 16
FRAMES_DIVISOR = 4
LIMITS = VideoLimits(
    family="wan",
    name="Wan",
    size_multiple=SIZE_MULTIPLE,
    frames_divisor=FRAMES_DIVISOR,
    unguided="WanPipeline does not guide",
)


class WanConfig(PipelineConfig):
    """How Wan is trained and sampled; flow_shift and sampler_kind are those of every family."""

    negative_prompt: str = Field(
        "",
        description="Prompt of the unconditional half of guidance, and of dropped captions: encoded as at inference. "
        "The empty text is what WanPipeline takes when none is given.",
    )

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """Sizes, guidance scales and attention that Wan cannot do, and the data that it needs."""
        return LIMITS.problems(cfg)

    def preflight(
        self,
        cfg: RunConfig,
        *,
        prompts: Sequence[ValidationPrompt],
        rows: Sequence[Mapping[str, Any]],
        latents_source: LatentsSource | None,
    ) -> list[Problem]:
        """Prompts that Wan cannot sample, roles that do not share a latent space, data that does not fit them."""
        from fastvideo_wan.run import input_problems

        return input_problems(cfg, prompts=prompts, rows=rows, latents_source=latents_source)

    def role_outline(
        self, cfg: RunConfig, role: str, *, rows: Sequence[Mapping[str, Any]], latents_source: LatentsSource | None
    ) -> RoleOutline:
        """A role's network on meta, and how it is called; see `fastvideo_core.components.OutlinesRoles`."""
        from fastvideo_wan.outline import role_outline

        return role_outline(cfg, role, rows=rows, latents_source=latents_source)

    def encoders(
        self, cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool
    ) -> EncoderIdentity | None:
        """Text encoder, and VAE where the data's latents are trained on, of the first trained role's pipeline."""
        from fastvideo_wan.run import encoders

        return encoders(cfg, latents_source=latents_source, download=download)
