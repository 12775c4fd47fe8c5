"""The `pipeline_config:` section of a run with Wan; never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastvideo_core.config.sections import GuidedPipelineConfig
from fastvideo_core.errors import Problem
from fastvideo_diffusers.video_limits import VideoLimits

if TYPE_CHECKING:
    from fastvideo_core.config.run import RunConfig
    from fastvideo_core.contracts.adapter import LatentsSource
    from fastvideo_core.contracts.family import RoleOutline
    from fastvideo_core.contracts.validator import ValidationPrompt
    from fastvideo_data.encoder import EncoderIdentity
    from fastvideo_data.video_sizes import VideoSize
    from fastvideo_wan.adapter import WanAdapter

SIZE_MULTIPLE = 16
FRAMES_DIVISOR = 4
LIMITS = VideoLimits(
    family="wan",
    name="Wan",
    size_multiple=SIZE_MULTIPLE,
    frames_divisor=FRAMES_DIVISOR,
    unguided="WanPipeline does not guide",
)

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，"
    "残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，"
    "三条腿，背景人很多，倒着走"
)
"""The published one: `sample_neg_prompt` of Wan-Video/Wan2.1, wan/configs/shared_config.py, for text-to-video."""


class WanConfig(GuidedPipelineConfig):
    """How Wan is trained and sampled, with the options of every family alone."""

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
        """A role's network on meta, and how it is called; see `fastvideo_core.contracts.family.OutlinesRoles`."""
        from fastvideo_wan.outline import role_outline

        return role_outline(cfg, role, rows=rows, latents_source=latents_source)

    def adapter_class(self) -> type[WanAdapter]:
        """The adapter's class, so that methods that need more are told before weights; see `dispatch.plugins`."""
        from fastvideo_wan.adapter import WanAdapter

        return WanAdapter

    def data_sizes(self, cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[VideoSize]:
        """The sizes in pixels of the data's latents; see `dispatch.preflight.KnowsSizes`."""
        from fastvideo_wan.run import data_sizes

        return data_sizes(cfg, rows)

    def encoders(
        self, cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool
    ) -> EncoderIdentity | None:
        """Text encoder, and VAE where the data's latents are trained on, of the first trained role's pipeline."""
        from fastvideo_wan.run import encoders

        return encoders(cfg, latents_source=latents_source, download=download)

    def resolve(self, cfg: RunConfig) -> WanConfig:
        """With the negative prompt in full."""
        return self.model_copy(update={"negative_prompt": self.negative_text(NEGATIVE_PROMPT)})
