"""How training methods talk to Wan 2.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_diffusers.adapter import PipelineAdapter
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.text import pad_text
from fastvideo_wan.batches import stored_latents
from fastvideo_wan.config import SIZE_MULTIPLE
from fastvideo_wan.folder import WanFolder
from fastvideo_wan.network import predict_velocity

TEXT = "text"


class WanAdapter(PipelineAdapter[WanFolder]):
    """Every primitive, over latents [B, 16, T, H, W] and the conditioning {"text": [B, 512, D]}; t is [B]."""

    family = "wan"
    name = "Wan 2.1"
    size_multiple = SIZE_MULTIPLE

    def text_conditioning(self, embeddings: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        return {TEXT: pad_text(embeddings, self.folder.text_length, lengths)[0]}

    def stored_video(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> Tensor:
        return stored_latents(raw_batch, self.folder, training)

    def velocity(
        self,
        handle: RoleHandle,
        noisy: Tensor,
        levels: Tensor,
        conditioning: Mapping[str, Tensor],
        batch: TrainingBatch,
    ) -> Tensor:
        transformer = handle.modules[TRANSFORMER]
        return predict_velocity(transformer, noisy, levels, conditioning[TEXT], autocast=self.autocast)

    def blocks(self, handle: RoleHandle) -> list[nn.Module]:
        transformer: Any = handle.modules[TRANSFORMER]
        return list(transformer.blocks)
