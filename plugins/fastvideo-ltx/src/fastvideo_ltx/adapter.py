"""How training methods talk to LTX: what both generations share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_diffusers.adapter import PreparedLatents
from fastvideo_diffusers.first_frame_adapter import FirstFrameAdapter
from fastvideo_diffusers.first_frames import GIVEN, check_first_frames, drawn_samples, kept
from fastvideo_diffusers.stored_tensors import stored_loss_mask
from fastvideo_ltx.batches import frame_rates
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout, pack_video, unpack_video

TEXT, TEXT_MASK = "text", "text_mask"
"""Conditioning: embeddings [B, L, D] and which of them are text [B, L] (bool)."""

FPS = "fps"
"""Context: frames per second of each sample [B], float64."""

CLEAN, GIVEN_NOISE = "clean", "given_noise"
"""Context of runs with first-frame conditioning, beside GIVEN, the tokens that are given [B, S]: clean latents [B, S, C], and
with first_frame_noise what is added to them at sigma 1 [B, S, C]."""

LAYOUT = "layout"
"""Extras: the TokenLayout of the batch."""


@dataclass(frozen=True)
class PackedLatents:
    """Normalised latents as the network takes them.

    Args:
        latents: [B, S, C] float32, S = layout.total.
        layout: what the tokens are.
        weight: of the loss, broadcastable to latents (streams, padding); None for 1 everywhere.
    """

    latents: Tensor
    layout: TokenLayout
    weight: Tensor | None = None


class LtxAdapter(FirstFrameAdapter[LtxFolder, LtxConfig]):
    """Every primitive, over packed latents [B, S, C] and the conditioning named above; t is [B], or [B, S, 1] per token.

    A given token (first-frame conditioning) enters the network clean, or with its own noise times sigma squared, and with
    t = 0; it stays clean in x0, and has no loss. Where first frames are given, `prepare_batch` needs the data's latents, and
    a generator unless all samples' are, without noise.

    Args:
        config: probability of first-frame conditioning, frame rate, streams.
    """

    family = "ltx"
    name = "LTX"
    levels_taken = "one noise level per sample, [B], or one per token, [B, S, 1]"

    # --- what a generation fills in ---------------------------------------------------------------------------------

    @abstractmethod
    def stored_latents(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> PackedLatents:
        """The data's latents, normalised and packed, on the device.

        Raises:
            DataError: there are none, or they do not fit the pipeline.
        """

    @abstractmethod
    def data_free_layout(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> TokenLayout:
        """The size of latents that are not taken from the data.

        Raises:
            ConfigError: the run names no usable size.
        """

    def data_free_weight(self, layout: TokenLayout) -> Tensor | None:
        """The loss weight of latents that are not taken from the data, broadcastable to them; None for 1 everywhere."""
        return None

    @abstractmethod
    def token_velocity(
        self,
        handle: RoleHandle,
        noisy: Tensor,
        t: Tensor,
        inputs: Mapping[str, Tensor],
        layout: TokenLayout,
    ) -> Tensor:
        """The network's velocity [B, S, C] at x_t: the pipeline's own call, in the dtype that it computes in.

        Args:
            t: [B], or per token [B, S].
            inputs: the text's conditioning and the batch's context.
        """

    # --- batches ----------------------------------------------------------------------------------------------------

    def prepare_latents(
        self,
        raw_batch: Mapping[str, Any],
        source: LatentsSource,
        batch_size: int,
        training: TrainingArgs,
        generator: torch.Generator | None,
    ) -> PreparedLatents:
        packed, clean = self._packed(raw_batch, source, batch_size, training)
        context = {FPS: frame_rates(raw_batch, self.frame_rate, batch_size).to(self.device)}
        latents, weight = packed.latents, packed.weight
        free = self._unmasked(raw_batch, packed.layout) if source == "data" else None
        if clean is not None:
            given = self._given_tokens(packed, generator)
            latents = kept(latents, given[..., None], clean)
            context |= self.given_context(given, clean, generator)
            free = (~given)[..., None].float() * (1 if free is None else free)
        if free is not None:
            weight = free if weight is None else weight * _free_of_stream(free, packed.layout)
        return PreparedLatents(latents, context, weight, {LAYOUT: packed.layout})

    def _unmasked(self, raw_batch: Mapping[str, Any], layout: TokenLayout) -> Tensor | None:
        """How much each token counts by the data's `loss_mask`, [B, S, 1], and sound in full; None where there is no mask."""
        mask = stored_loss_mask(raw_batch, layout.frames, layout.height, layout.width)
        if mask is None:
            return None
        tokens = pack_video(mask.to(self.device, torch.float32, non_blocking=True))
        return torch.cat([tokens, tokens.new_ones(len(tokens), layout.audio, 1)], dim=1)

    def unpack_latents(self, latents: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        return {"vae_latent": unpack_video(latents, batch.extras[LAYOUT])}

    @property
    def frame_rate(self) -> float:
        """Frames per second of what names none."""
        return self.folder.traits.frame_rate(self.config)

    def _packed(
        self, raw_batch: Mapping[str, Any], source: LatentsSource, batch_size: int, training: TrainingArgs
    ) -> tuple[PackedLatents, Tensor | None]:
        """The batch's latents, and the clean ones where first frames may be given."""
        gives_frames = self.config.first_frame_probability > 0
        stored = self.stored_latents(raw_batch, training) if source == "data" or gives_frames else None
        if source == "data":
            assert stored is not None
            return stored, stored.latents if gives_frames else None
        layout = self.data_free_layout(raw_batch, training)
        zeros = torch.zeros(batch_size, layout.total, self.folder.channels, device=self.device)
        packed = PackedLatents(zeros, layout, self.data_free_weight(layout))
        if stored is None:
            return packed, None
        check_first_frames((stored.layout.height, stored.layout.width), (layout.height, layout.width))
        clean = zeros.clone()
        clean[:, : layout.first_frame] = stored.latents[:, : layout.first_frame]
        return packed, clean

    def given_context(self, given: Tensor, clean: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        """The context of given tokens [B, S], which are those of clean [B, S, C].

        Args:
            generator: for the noise of `first_frame_noise`.
        """
        if not self.config.first_frame_noise:
            return {GIVEN: given, CLEAN: clean}
        if generator is None:
            raise ValueError("given first frames have noise: prepare_batch() needs a generator")
        noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean.device)
        return {GIVEN: given, CLEAN: clean, GIVEN_NOISE: self.config.first_frame_noise * noise}

    def _given_tokens(self, packed: PackedLatents, generator: torch.Generator | None) -> Tensor:
        """[B, S]: the first frame's tokens of the samples that are drawn."""
        layout, probability = packed.layout, self.config.first_frame_probability
        drawn = drawn_samples(len(packed.latents), probability, frames=layout.frames, generator=generator)
        return drawn.to(self.device)[:, None] & self._first_tokens(layout)

    def _first_tokens(self, layout: TokenLayout) -> Tensor:
        """[S]: which tokens are the first frame's."""
        return torch.arange(layout.total, device=self.device) < layout.first_frame

    # --- the network ------------------------------------------------------------------------------------------------

    def velocity(
        self,
        handle: RoleHandle,
        noisy: Tensor,
        levels: Tensor,
        conditioning: Mapping[str, Tensor],
        batch: TrainingBatch,
    ) -> Tensor:
        """As the generation's `token_velocity`; of no meaning on given tokens."""
        given = batch.context.get(GIVEN)
        if given is not None:
            per_token = levels if levels.ndim == 2 else levels[:, None]
            clean = batch.context[CLEAN]
            if (own := batch.context.get(GIVEN_NOISE)) is not None:
                clean = clean + own * (per_token / self.num_train_timesteps).square()[..., None]
            noisy = kept(noisy, given[..., None], clean)
            levels = torch.where(given, torch.zeros_like(per_token), per_token)
        return self.token_velocity(handle, noisy, levels, {**conditioning, **batch.context}, batch.extras[LAYOUT])

    def sample_timesteps(self, t: Tensor, latents: Tensor) -> Tensor:
        """[B], or per token [B, S]."""
        if latents.shape[1] > 1 and tuple(t.shape) == (*latents.shape[:2], 1):
            return t.to(latents.device)[..., 0]
        return super().sample_timesteps(t, latents)

    def given_latents(self, context: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return context[GIVEN][..., None], context[CLEAN]

    # --- sampling ---------------------------------------------------------------------------------------------------

    def video_batch(
        self,
        text: Tensor,
        negative: Tensor | None,
        layout: TokenLayout,
        *,
        first: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> TrainingBatch:
        """What few-step sampling of one video conditions on; arguments as `prompt_batch`, the latents are zeros.

        Args:
            first: the tokens of a given first frame [1, layout.first_frame, C].
            generator: for the noise of `first_frame_noise` on it.
        """
        zeros = torch.zeros(1, layout.total, self.folder.channels, device=self.device)
        context = {FPS: torch.tensor([self.frame_rate], dtype=torch.float64, device=self.device)}
        if first is not None:
            clean = torch.cat([first.to(self.device), zeros[:, layout.first_frame :]], dim=1)
            context |= self.given_context(self._first_tokens(layout)[None], clean, generator)
        return self.prompt_batch(zeros, text, negative, context=context, extras={LAYOUT: layout})


def _free_of_stream(free: Tensor, layout: TokenLayout) -> Tensor:
    """How much each token counts, 0 where it is given, [B, S, 1]; scaled so that the video's tokens still sum to their number:
    given frames and masks take nothing from the stream's part of the loss."""
    video, audio = free[:, : layout.video], free[:, layout.video :]
    return torch.cat([video * (layout.video / video.sum(dim=1, keepdim=True).clamp(min=1e-6)), audio], dim=1)
