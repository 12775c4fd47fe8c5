"""What the adapters share of families whose first latent frame may be given by keeping it clean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from torch import Tensor

from fastvideo_core.contracts.adapter import AttentionKind
from fastvideo_core.contracts.batch import TrainingBatch, Trajectory
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_diffusers.adapter import PipelineAdapter
from fastvideo_diffusers.first_frame_config import FirstFrameConfig
from fastvideo_diffusers.first_frames import GIVEN, kept
from fastvideo_diffusers.folder import PipelineFolder

F = TypeVar("F", bound=PipelineFolder)
C = TypeVar("C", bound=FirstFrameConfig)


class FirstFrameAdapter(PipelineAdapter[F], Generic[F, C]):
    """Every primitive, where latents that are given stay clean in x0.

    Args:
        config: the family's options, the probability of given first frames among them.
        settings: as of every `PipelineAdapter`.
    """

    def __init__(self, folder: F, *, config: C, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.config = config

    @abstractmethod
    def given_latents(self, context: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Where latents are given (bool), and the clean ones, broadcastable to them; of a batch's context that holds GIVEN."""

    def stored_trajectory(self, raw_batch: Mapping[str, Any]) -> Trajectory:
        self.config.check_no_first_frames()
        return super().stored_trajectory(raw_batch)

    def predict_x0(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: AttentionKind = "dense",
    ) -> Tensor:
        """x0 = x_t - sigma v, float32 at least; what is given is the clean latents."""
        x0 = super().predict_x0(handle, noisy_latents, t, batch, conditional=conditional, attn_kind=attn_kind)
        return x0 if GIVEN not in batch.context else kept(x0, *self.given_latents(batch.context))
