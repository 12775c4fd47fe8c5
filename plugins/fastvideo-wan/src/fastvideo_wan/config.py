"""The `pipeline_config:` section of a run with Wan; never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fastvideo_core.config.sections import MethodConfig, PipelineConfig
from fastvideo_core.errors import Problem

if TYPE_CHECKING:
    from fastvideo_core.adapter import LatentsSource
    from fastvideo_core.components import RoleOutline
    from fastvideo_core.config.run import RunConfig
    from fastvideo_core.data.encoder import EncoderIdentity
    from fastvideo_core.data.validation import ValidationPrompt

SIZE_MULTIPLE = 16
FRAMES_DIVISOR = 4


class WanConfig(PipelineConfig):
    """How Wan is trained and sampled; flow_shift and sampler_kind are those of every family."""

    negative_prompt: str = Field(
        "",
        description="Prompt of the unconditional half of guidance, and of dropped captions: encoded as at inference. "
        "The empty text is what WanPipeline takes when none is given.",
    )

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """Sizes, guidance scales and attention that Wan cannot do, and the data that it needs."""
        problems = []
        if isinstance(cfg.method_config, MethodConfig) and cfg.method_config.attn_kind != "dense":
            problem = Problem("the family 'wan' has dense attention only", allowed="dense", fix="remove attn_kind")
            problems.append(("method_config.attn_kind", problem))
        training = cfg.training
        if training.VSA_sparsity > 0:
            problem = Problem(
                f"found {training.VSA_sparsity}, but the family 'wan' has dense attention only",
                allowed="0",
                fix="remove VSA_sparsity",
            )
            problems.append(("training.VSA_sparsity", problem))
        if training.data_path is None:
            problem = Problem(
                "missing; the family 'wan' brings no data loader of its own",
                allowed="a parquet data set",
                fix="make one with `fastvideo-distill preprocess`, then set training.data_path",
            )
            problems.append(("training.data_path", problem))
        for name in ("num_height", "num_width"):
            size = getattr(training, name)
            if size is not None and size % SIZE_MULTIPLE:
                near = _neighbours(size, SIZE_MULTIPLE, 0)
                problem = Problem(f"{size} pixels do not fit Wan", allowed="multiples of 16", fix=f"use {near}")
                problems.append((f"training.{name}", problem))
        if training.num_frames is not None and training.num_frames % FRAMES_DIVISOR != 1:
            near = _neighbours(training.num_frames, FRAMES_DIVISOR, 1)
            problem = Problem(
                f"{training.num_frames} frames do not fit Wan", allowed="multiples of 4 plus 1", fix=f"use {near}"
            )
            problems.append(("training.num_frames", problem))
        if training.log_validation:
            for index, scale in enumerate(training.validation_guidance_scale):
                if scale < 1:
                    problem = Problem(
                        f"guidance scale {scale} is below 1, where WanPipeline does not guide", allowed="1 or more"
                    )
                    problems.append((f"training.validation_guidance_scale[{index}]", problem))
        return problems

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


def _neighbours(value: int, multiple: int, remainder: int) -> str:
    below = (value - remainder) // multiple * multiple + remainder
    return " or ".join(str(n) for n in (below, below + multiple) if n > 0)
