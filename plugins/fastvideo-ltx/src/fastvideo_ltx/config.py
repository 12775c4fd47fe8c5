"""The `pipeline_config:` section of a run with LTX; never imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

from fastvideo_core.config import limits
from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import Problem
from fastvideo_diffusers.first_frame_config import FirstFrameConfig
from fastvideo_diffusers.video_limits import VideoLimits

SIZE_MULTIPLE = 32
FRAMES_DIVISOR = 8
LIMITS = VideoLimits(
    family="ltx",
    name="LTX",
    size_multiple=SIZE_MULTIPLE,
    frames_divisor=FRAMES_DIVISOR,
    unguided="LTX's pipelines do not guide",
)

Stream = Literal["video", "audio"]


def _with_video(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("the same stream is named twice")
    if "video" not in value:
        raise ValueError("video must be among them")
    return value


Streams = Annotated[tuple[Stream, ...], Strict(False), AfterValidator(_with_video)]


class LtxConfig(FirstFrameConfig):
    """How LTX is trained and sampled; flow_shift, sampler_kind and negative_prompt are those of every family.

    Without flow_shift the shift follows the pipeline's scheduler: where it shifts dynamically, training takes the shift of
    the run's number of tokens, and many-step sampling that of each video.
    """

    streams: Streams | None = Field(
        None,
        description="What is trained and sampled; null is everything that the pipeline makes (LTX-2: video, audio).",
    )
    audio_loss_weight: float = Field(
        1.0,
        ge=0,
        le=limits.FACTOR,
        description="Weight a of the sound in the loss (V + a A) / (1 + a), where V and A are the mean losses of video and "
        "sound.",
    )
    first_frame_noise: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Size of the noise on given first frames, times sigma squared (image_cond_noise_scale of LTX-Video); null "
        "trains without, and samples with that of the pipeline (LTXConditionPipeline: 0.15).",
    )
    upsampler: str | None = Field(
        None,
        description="Folder or hub id with a `latent_upsampler`: videos are sampled at half their size, upsampled and refined.",
    )
    fps: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Frames per second of clips whose data names none, and of sampled videos; null is the model's own.",
    )
    shift_tokens: int | None = Field(
        None,
        ge=1,
        le=limits.STEPS,
        description="Number of video tokens whose dynamic shift is trained with; null counts those of the run's videos.",
    )
    decode_timestep: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Noise level at which a VAE with timestep conditioning (0.9.1 and later) decodes; others ignore it.",
    )

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """Sizes, guidance scales and attention that LTX cannot do, and the data that it needs."""
        problems = LIMITS.problems(cfg)
        if self.shift_tokens is not None and self.flow_shift is not None:
            problem = Problem(
                "says where the dynamic shift is taken, but flow_shift replaces it", fix="remove one of them"
            )
            problems.append(("pipeline_config.shift_tokens", problem))
        return problems
