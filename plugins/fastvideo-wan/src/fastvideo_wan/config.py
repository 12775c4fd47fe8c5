"""The `pipeline_config:` section of a run with Wan; never imports torch."""

from __future__ import annotations

from pydantic import Field

from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import Problem
from fastvideo_diffusers.first_frame_config import FirstFrameConfig
from fastvideo_diffusers.video_limits import VideoLimits

SIZE_MULTIPLE = 16
FRAMES_DIVISOR = 4
LIMITS = VideoLimits(
    family="wan",
    name="Wan",
    size_multiple=SIZE_MULTIPLE,
    frames_divisor=FRAMES_DIVISOR,
    unguided="WanPipeline does not guide",
    sparse=True,
)

STUDENT = "student"
"""The role that attends sparsely."""

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，"
    "残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，"
    "三条腿，背景人很多，倒着走"
)
"""The published one: `sample_neg_prompt` of Wan-Video/Wan2.1, wan/configs/shared_config.py, for text-to-video."""


class WanConfig(FirstFrameConfig):
    """How Wan is trained and sampled."""

    guidance_scale_2: float | None = Field(
        None,
        ge=1,
        allow_inf_nan=False,
        description="Guidance of many-step sampling below boundary_ratio (Wan 2.2); null: the other one.",
    )

    student_sparsity: float | None = Field(
        None, ge=0, lt=1, description="VSA sparsity of the student in validation and `sample`; null: that of training."
    )
    sparse_gates: bool = Field(
        True,
        description="With attn_kind vsa: give the student gates (zero at first) of the coarse stage, which else counts fully.",
    )

    def of_role(self, role: str) -> WanConfig:
        """None but the student attends sparsely."""
        return self if role == STUDENT else self.model_copy(update={"student_sparsity": None})

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """Sizes, guidance scales and attention that Wan cannot do, and the data that it needs."""
        return LIMITS.problems(cfg)
