"""What the networks of a family ask of a run's sizes, attention and guidance; never imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from fastvideo_core.config.base import MethodConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import Problem


@dataclass(frozen=True)
class VideoLimits:
    """The limits of a family that trains on parquet data, and samples through diffusers pipelines.

    Args:
        family: as run.yaml names it.
        name: as messages name its models.
        size_multiple: pixels that height and width are multiples of.
        frames_divisor: d of videos with d k + 1 frames.
        unguided: where guidance scales below 1 do not guide.
        sparse: whether it has sparse attention too.
    """

    family: str
    name: str
    size_multiple: int
    frames_divisor: int
    unguided: str
    sparse: bool = False

    def problems(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """What the run asks for beyond them, by key: for a family's `PipelineConfig.check_run`."""
        return [*self._attention(cfg), *self._sizes(cfg.training), *self._guidance(cfg.training)]

    def _attention(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        problems = []
        if self.sparse:
            return _sparse_attention(cfg)
        dense = f"the family '{self.family}' has dense attention only"
        if isinstance(cfg.method_config, MethodConfig) and cfg.method_config.attn_kind != "dense":
            problem = Problem(dense, allowed="dense", fix="remove attn_kind")
            problems.append(("method_config.attn_kind", problem))
        sparsity = cfg.training.VSA_sparsity
        if sparsity > 0:
            problem = Problem(f"found {sparsity}, but {dense}", allowed="0", fix="remove VSA_sparsity")
            problems.append(("training.VSA_sparsity", problem))
        return problems

    def _sizes(self, training: TrainingArgs) -> list[tuple[str, Problem]]:
        problems = []
        if training.data_path is None:
            problem = Problem(
                f"missing; the family '{self.family}' brings no data loader of its own",
                allowed="a parquet data set",
                fix="make one with `fastvideo-distill preprocess`, then set training.data_path",
            )
            problems.append(("training.data_path", problem))
        for key, pixels in (("num_height", training.num_height), ("num_width", training.num_width)):
            if pixels is not None and pixels % self.size_multiple:
                near = _neighbours(pixels, self.size_multiple, 0)
                allowed = f"multiples of {self.size_multiple}"
                problem = Problem(f"{pixels} pixels do not fit {self.name}", allowed=allowed, fix=f"use {near}")
                problems.append((f"training.{key}", problem))
        frames, divisor = training.num_frames, self.frames_divisor
        if frames is not None and frames % divisor != 1:
            allowed, near = f"multiples of {divisor} plus 1", _neighbours(frames, divisor, 1)
            problem = Problem(f"{frames} frames do not fit {self.name}", allowed=allowed, fix=f"use {near}")
            problems.append(("training.num_frames", problem))
        return problems

    def _guidance(self, training: TrainingArgs) -> list[tuple[str, Problem]]:
        scales = training.validation_guidance_scale if training.log_validation else ()
        found = "guidance scale {} is below 1, where {}"
        return [
            (
                f"training.validation_guidance_scale[{index}]",
                Problem(found.format(scale, self.unguided), allowed="1 or more"),
            )
            for index, scale in enumerate(scales)
            if scale < 1
        ]


def _sparse_attention(cfg: RunConfig) -> list[tuple[str, Problem]]:
    sparsity, training = cfg.training.VSA_sparsity, cfg.training
    if attends_sparsely(cfg):
        if not training.enable_torch_compile:
            return []
        found = "found true with attn_kind: vsa, which brings its own compiled kernels"
        return [("training.enable_torch_compile", Problem(found, fix="remove it"))]
    if sparsity == 0:
        return []
    found = f"found {sparsity}, and the student's attention is dense, which leaves nothing out"
    return [
        ("training.VSA_sparsity", Problem(found, allowed="0", fix="set method_config.attn_kind: vsa, or remove it"))
    ]


def attends_sparsely(cfg: RunConfig) -> bool:
    """Whether the run's student has sparse attention."""
    return isinstance(cfg.method_config, MethodConfig) and cfg.method_config.attn_kind == "vsa"


def _neighbours(value: int, multiple: int, remainder: int) -> str:
    below = (value - remainder) // multiple * multiple + remainder
    return " or ".join(str(n) for n in (below, below + multiple) if n > 0)
