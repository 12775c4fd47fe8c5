"""How training methods talk to Wan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.adapter import Ranges
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_diffusers.adapter import PipelineAdapter
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.text import pad_text
from fastvideo_wan.batches import stored_latents
from fastvideo_wan.folder import TRANSFORMER_2, WanFolder
from fastvideo_wan.network import predict_velocity

TEXT = "text"


class WanAdapter(PipelineAdapter[WanFolder]):
    """Every primitive, over latents [B, C, T, H, W] and the conditioning {"text": [B, 512, D]}; t is [B].

    Args:
        boundary_ratios: by role, of those that have two networks; see `WanFolder`.
        settings: as of every `PipelineAdapter`.
    """

    family = "wan"
    name = "Wan"

    def __init__(self, folder: WanFolder, *, boundary_ratios: Mapping[str, float], **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.size_multiple = folder.size_multiple
        self._boundary_ratios = boundary_ratios

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
        network = self._network(handle, levels)
        return predict_velocity(network, noisy, levels, conditioning[TEXT], autocast=self.autocast)

    def noise_ranges(self, handle: RoleHandle) -> Ranges:
        """As `NoiseRanges` says: the boundary itself belongs to the first network."""
        boundary, end = self._boundary(handle), float(self.num_train_timesteps)
        if boundary is None:
            return ((0.0, end),)
        ranges = {TRANSFORMER_2: (0.0, boundary), TRANSFORMER: (boundary, end)}
        return tuple(one for name, one in ranges.items() if not handle.trainable or handle.may_train(name))

    def extract_features(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, conditional: bool
    ) -> list[Tensor]:
        called = replace(handle, modules={TRANSFORMER: self._network(handle, t)})
        return super().extract_features(called, noisy_latents, t, batch, conditional=conditional)

    def feature_channels(self, handle: RoleHandle) -> tuple[int, ...]:
        return super().feature_channels(replace(handle, modules={TRANSFORMER: handle.modules[TRANSFORMER]}))

    def _boundary(self, handle: RoleHandle) -> float | None:
        """The timestep at which the role's networks change; None where it has one."""
        if TRANSFORMER_2 not in handle.modules:
            return None
        return self._boundary_ratios[handle.copy_of or handle.name] * self.num_train_timesteps  # as WanPipeline does

    def _network(self, handle: RoleHandle, t: Tensor) -> Any:
        """The network that serves timesteps t, any shape.

        Raises:
            ValueError: they lie on both sides of the boundary.
        """
        if (boundary := self._boundary(handle)) is None:
            return handle.modules[TRANSFORMER]
        low, high = torch.stack(t.detach().aminmax()).double().tolist()
        if low < boundary <= high:
            raise ValueError(
                f"t from {low:g} to {high:g} in one call of role '{handle.name}', whose networks change at {boundary:g}"
            )
        return handle.modules[TRANSFORMER_2 if high < boundary else TRANSFORMER]

    def blocks(self, handle: RoleHandle) -> list[nn.Module]:
        (network,) = handle.modules.values()
        return list(cast("Any", network).blocks)
