"""How training methods talk to Wan."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.adapter import AttentionKind, LatentsSource, Ranges
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_diffusers.adapter import SPARSITY, PreparedLatents
from fastvideo_diffusers.first_frame_adapter import FirstFrameAdapter
from fastvideo_diffusers.first_frames import GIVEN, check_first_frames
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.text import pad_text
from fastvideo_wan.batches import stored_latents
from fastvideo_wan.config import WanConfig
from fastvideo_wan.first_frame import FIRST_FRAME, at_its_level, token_levels, with_given_frames
from fastvideo_wan.folder import TRANSFORMER_2, WanFolder
from fastvideo_wan.image_batches import CONDITION, FEATURES, given_frames
from fastvideo_wan.network import predict_velocity
from fastvideo_wan.sparse import calling, sparse_call

TEXT = "text"


class WanAdapter(FirstFrameAdapter[WanFolder, WanConfig]):
    """Every primitive, over latents [B, C, T, H, W] and the conditioning {"text": [B, 512, D]}; t is [B].

    TI2V takes t per latent frame too, [B, 1, T, 1, 1]. A given first frame enters the network clean and with t = 0, stays clean
    in x0, and has no loss. Where first frames are given, `prepare_batch` needs the data's latents, and a generator unless all
    samples' are.

    Image-to-video networks have the given frames in the batch's context: see `given_frames`.

    Args:
        config: probability of first-frame conditioning.
        boundary_ratios: by role, of those that have two networks; see `WanFolder`.
        settings: as of every `PipelineAdapter`.
    """

    family = "wan"
    name = "Wan"
    supported_attention = ("dense", "vsa")

    def __init__(
        self, folder: WanFolder, *, config: WanConfig, boundary_ratios: Mapping[str, float], **settings: Any
    ) -> None:
        super().__init__(folder, config=config, **settings)
        self.size_multiple = folder.size_multiple
        if folder.expand_timesteps:
            self.levels_taken = "one noise level per sample, [B], or one per latent frame, [B, 1, T, 1, 1]"
        self._boundary_ratios = boundary_ratios

    def text_conditioning(self, embeddings: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        return {TEXT: pad_text(embeddings, self.folder.text_length, lengths)[0]}

    def stored_video(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> Tensor:
        return stored_latents(raw_batch, self.folder, training)

    def prepare_latents(
        self,
        raw_batch: Mapping[str, Any],
        source: LatentsSource,
        batch_size: int,
        training: TrainingArgs,
        generator: torch.Generator | None,
    ) -> PreparedLatents:
        prepared = super().prepare_latents(raw_batch, source, batch_size, training, generator)
        probability = self.config.first_frame_probability
        if probability == 0:
            return prepared
        clean = prepared.latents
        if source == "zeros":
            clean = super().prepare_latents(raw_batch, "data", batch_size, training, generator).latents
            check_first_frames(clean.shape[3:], prepared.latents.shape[3:])
        return with_given_frames(prepared, clean[:, :, :1], probability, generator)

    def sample_timesteps(self, t: Tensor, latents: Tensor) -> Tensor:
        """[B], or of TI2V per latent frame, [B, T]."""
        batch_size, _, frames, _, _ = latents.shape
        if self.folder.expand_timesteps and frames > 1 and tuple(t.shape) == (batch_size, 1, frames, 1, 1):
            return t.to(latents.device).reshape(batch_size, frames)
        return super().sample_timesteps(t, latents)

    def given_latents(self, context: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return context[GIVEN], context[FIRST_FRAME]

    def velocity(
        self,
        handle: RoleHandle,
        noisy: Tensor,
        levels: Tensor,
        conditioning: Mapping[str, Tensor],
        batch: TrainingBatch,
    ) -> Tensor:
        """As the pipelines call it; of no meaning on given frames."""
        network, given = self._network(handle, levels), batch.context
        noisy, levels = at_its_level(noisy, levels, given)
        t = token_levels(levels, noisy.shape, self.folder)
        images = {"condition": given.get(CONDITION), "features": given.get(FEATURES)}
        return predict_velocity(network, noisy, t, conditioning[TEXT], **images, autocast=self.autocast)

    def attention(
        self, handle: RoleHandle, noisy: Tensor, levels: Tensor, kind: AttentionKind, batch: TrainingBatch
    ) -> AbstractContextManager[None]:
        """Sparse attention leaves out what the batch was prepared for."""
        network, sparse = self._network(handle, levels), None
        if kind == "vsa":
            sparse = sparse_call(network, noisy.shape, batch.extras[SPARSITY], noisy.device)
        return calling(network, sparse)

    def given(self, raw_batch: Mapping[str, Any], latents: Tensor) -> dict[str, Tensor]:
        """The images' latents and features, of networks that take them."""
        if self.folder.images is None:
            return {}
        stored = given_frames(raw_batch, self.folder, latents.shape)
        return {key: value.to(self.device, non_blocking=True) for key, value in stored.items()}

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
