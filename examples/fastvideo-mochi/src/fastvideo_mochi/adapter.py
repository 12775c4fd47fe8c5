"""How training methods talk to Mochi: its conventions end here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastvideo_core import RoleHandle, TrainingBatch
from fastvideo_diffusers.adapter import PipelineAdapter
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.text import pad_text
from fastvideo_mochi.config import SIZE_MULTIPLE
from fastvideo_mochi.folder import MochiFolder


class MochiAdapter(PipelineAdapter[MochiFolder]):
    """Latents are [B, 12, T, H, W], the conditioning {"text": [B, 256, D], "mask": [B, 256]}; t is one level per sample."""

    family = "mochi"
    name = "Mochi"
    size_multiple = SIZE_MULTIPLE

    def text_conditioning(self, embeddings: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        text, mask = pad_text(embeddings, self.folder.text_length, lengths)
        return {"text": text, "mask": mask}

    def velocity(
        self,
        handle: RoleHandle,
        noisy: Tensor,
        levels: Tensor,
        conditioning: Mapping[str, Tensor],
        batch: TrainingBatch,
    ) -> Tensor:
        """The velocity noise - x0. Mochi's time runs from noise to data: it takes 1000 - t and gives x0 - noise."""
        transformer: Any = handle.modules[TRANSFORMER]
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.autocast):
            towards_data: Tensor = transformer(
                hidden_states=noisy.to(transformer.dtype),
                timestep=self.num_train_timesteps - levels,
                encoder_hidden_states=conditioning["text"].to(transformer.dtype),
                encoder_attention_mask=conditioning["mask"],
                return_dict=False,
            )[0]
        return -towards_data
