"""The `pipeline_config:` section of a run with LTX; never imports torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, Strict

from fastvideo_core.config import limits
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
    from fastvideo_ltx.adapter import LtxAdapter

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


class LtxConfig(GuidedPipelineConfig):
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
    first_frame_probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability, drawn anew for each sample, that its first latent frame is given (image-to-video "
        "training): it stays clean and has no loss. Samples of one latent frame are never conditioned.",
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

    def preflight(
        self,
        cfg: RunConfig,
        *,
        prompts: Sequence[ValidationPrompt],
        rows: Sequence[Mapping[str, Any]],
        latents_source: LatentsSource | None,
    ) -> list[Problem]:
        """Prompts that LTX cannot sample, roles that do not share a latent space, data that does not fit them."""
        from fastvideo_ltx.run import input_problems

        return input_problems(cfg, self, prompts=prompts, rows=rows, latents_source=latents_source)

    def adapter_class(self) -> type[LtxAdapter]:
        """The adapter's class, so that methods that need more are told before weights; see `dispatch.plugins`."""
        from fastvideo_ltx.adapter import LtxAdapter

        return LtxAdapter

    def data_sizes(self, cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[VideoSize]:
        """The sizes in pixels of the data's latents; see `dispatch.preflight.KnowsSizes`."""
        from fastvideo_ltx.run import data_sizes

        return data_sizes(cfg, rows)

    def encoders(
        self, cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool
    ) -> EncoderIdentity | None:
        """Text encoder, and VAEs where the data's latents are trained on, of the first trained role's pipeline."""
        from fastvideo_ltx.run import encoders

        return encoders(cfg, self, latents_source=latents_source, download=download)

    def role_outline(
        self, cfg: RunConfig, role: str, *, rows: Sequence[Mapping[str, Any]], latents_source: LatentsSource | None
    ) -> RoleOutline:
        """A role's network on meta, and how it is called; see `fastvideo_core.contracts.family.OutlinesRoles`."""
        from fastvideo_ltx.outline import role_outline

        return role_outline(cfg, role, rows=rows, latents_source=latents_source)

    def unread_tensors(self) -> Collection[str]:
        """The sound, in a run on video alone."""
        return () if self.streams is None or "audio" in self.streams else ("audio_latent",)

    def resolve(self, cfg: RunConfig) -> LtxConfig:
        """With the negative prompt in full, and with shift_tokens where the shift of the run depends on them."""
        from fastvideo_ltx.run import open_roles, resolve_shift_tokens

        roles = open_roles(cfg)
        negative = self.negative_text(roles.generation.negative_prompt)
        tokens = resolve_shift_tokens(cfg, self, roles)
        return self.model_copy(update={"negative_prompt": negative, "shift_tokens": tokens})
