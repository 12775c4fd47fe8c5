"""How training methods talk to LTX: what both generations share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.adapter import AttentionKind, LatentsSource
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.flow_adapter import FlowMatchingAdapter
from fastvideo_core.contracts.hidden_states import features_of
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_diffusers.stored_tensors import stored_text
from fastvideo_ltx.batches import check_first_frames, frame_rates
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout

TEXT, TEXT_MASK = "text", "text_mask"
"""Conditioning: embeddings [B, L, D] and which of them are text [B, L] (bool)."""

FPS = "fps"
"""Context: frames per second of each sample [B], float64."""

GIVEN, CLEAN = "given", "clean"
"""Context of runs with first-frame conditioning: which tokens are given [B, S] (bool), and clean latents [B, S, C]."""

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


class LtxAdapter(FlowMatchingAdapter):
    """Every primitive, over packed latents [B, S, C] and the conditioning named above; t is [B], or [B, S, 1] per token.

    A given token (first-frame conditioning) enters the network clean and with t = 0, stays clean in x0, and has no loss.

    Args:
        folder: the base pipeline's facts.
        config: probability of first-frame conditioning, frame rate, streams.
        flow_shift: the run's one timestep shift.
        device: where batches go.
        training: its sizes crop the latents of the data, and shape those of data-free training; where it names none, the
            data's latents do. None for an adapter that only samples.
        autocast: compute in bfloat16 where a network's weights are float32.
        prompts: embeddings of captions; asked on_train_start.
        negative_prompt: in full.
    """

    supported_attention: tuple[AttentionKind, ...] = ("dense",)
    """The values of `attn_kind` that this family can do."""

    def __init__(
        self,
        folder: LtxFolder,
        *,
        config: LtxConfig,
        flow_shift: float,
        device: torch.device,
        training: TrainingArgs | None,
        autocast: bool,
        prompts: PromptEmbeddings,
        negative_prompt: str,
    ) -> None:
        super().__init__(flow_shift, folder.num_train_timesteps)
        self.folder = folder
        self.config = config
        self.device = device
        self.autocast = autocast
        self._training = training
        self._prompts = prompts
        self._negative_prompt = negative_prompt
        self._negative_text: dict[str, Tensor] | None = None
        self._empty_text: dict[str, Tensor] | None = None

    # --- what a generation fills in ---------------------------------------------------------------------------------

    @abstractmethod
    def text_conditioning(self, embeddings: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """What the network takes of stored text [B, L, D], on its device; every value [B, ...].

        Args:
            lengths: tokens of each sample [B]; None is L for all.
        """

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
    def velocity(
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

    @abstractmethod
    def blocks(self, handle: RoleHandle) -> list[nn.Module]:
        """The transformer's blocks, shallow to deep; the first output of each is [B, tokens, channels]."""

    @abstractmethod
    def width(self, handle: RoleHandle) -> int:
        """The channels of those outputs."""

    # --- batches ----------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Encodes the negative prompt and the empty text, once."""
        if self._negative_text is None:
            self._negative_text, self._empty_text = self._encoded(self._negative_prompt), self._encoded("")

    def _encoded(self, caption: str) -> dict[str, Tensor]:
        embedding = self._prompts.get(caption).to(self.device, torch.float32)
        return self.text_conditioning(embedding[None], None)

    def prepare_batch(
        self,
        raw_batch: Mapping[str, Any],
        *,
        current_vsa_sparsity: float = 0.0,
        latents_source: LatentsSource = "data",
        generator: torch.Generator | None = None,
    ) -> TrainingBatch:
        """Normalised float32 latents and float32 text, padded as at inference; given first frames drawn per sample.

        Args:
            raw_batch: `text_embedding` [B, L, D] with `text_embedding_length` [B], and for "data", or where first frames
                are given, `vae_latent` [B, C, F, H, W] with `vae_latent_normalised`; `info` with each clip's `fps`.
            generator: needed where first frames are given in some samples only.

        Raises:
            DataError: something is missing from the data or has a shape that the pipeline cannot take.
            ConfigError: sparse attention is asked for, or the sizes that "zeros" needs are missing or contradict.
        """
        assert self._training is not None
        if current_vsa_sparsity > 0:
            raise _dense_only(f"a VSA sparsity of {current_vsa_sparsity}")
        text = stored_text(raw_batch, width=self.folder.text_dim, path=self.folder.path)
        text = text.to(self.device, torch.float32, non_blocking=True)
        conditioning = self.text_conditioning(text, raw_batch.get("text_embedding_length"))
        packed, clean = self._packed(raw_batch, latents_source, len(text), self._training)
        context = {FPS: frame_rates(raw_batch, self.frame_rate, len(text)).to(self.device)}
        latents, weight = packed.latents, packed.weight
        if clean is not None:
            given = self._given_tokens(packed, generator)
            latents = torch.where(given[..., None], clean, latents)
            context |= {GIVEN: given, CLEAN: clean}
            free = (~given)[..., None].float()
            weight = free if weight is None else weight * _free_of_stream(free, packed.layout)
        negative, empty = self._negative_text, self._empty_text
        return TrainingBatch(
            latents=latents,
            conditioning=conditioning,
            negative_conditioning=None if negative is None else _for_batch(negative, len(text)),
            dropped_conditioning=None if empty is None else _for_batch(empty, len(text)),
            context=context,
            loss_weight=weight,
            extras={LAYOUT: packed.layout, "info": raw_batch.get("info", [])},
        )

    @property
    def frame_rate(self) -> float:
        """Frames per second of what names none."""
        return self.folder.generation.frame_rate(self.config)

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
        check_first_frames((stored.layout.height, stored.layout.width), layout)
        clean = zeros.clone()
        clean[:, : layout.first_frame] = stored.latents[:, : layout.first_frame]
        return packed, clean

    def _given_tokens(self, packed: PackedLatents, generator: torch.Generator | None) -> Tensor:
        """[B, S]: the first frame's tokens of the samples that are drawn; no draw decides when the probability is 1."""
        layout, batch_size = packed.layout, len(packed.latents)
        probability = self.config.first_frame_probability
        if probability < 1 and generator is None:
            raise ValueError("first frames are given at random: prepare_batch() needs a generator")
        drawn = torch.ones(batch_size, dtype=torch.bool)
        if probability < 1:
            assert generator is not None
            drawn = torch.rand(batch_size, generator=generator, device=generator.device) < probability
        if layout.frames == 1:  # nothing would be left to learn
            drawn = torch.zeros_like(drawn)
        first = torch.arange(layout.total, device=self.device) < layout.first_frame
        return drawn.to(self.device)[:, None] & first

    # --- the network ------------------------------------------------------------------------------------------------

    def predict_noise(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: AttentionKind = "dense",
    ) -> Tensor:
        """The velocity that the role's network predicts, in the dtype that it computes in; of no meaning on given tokens.

        Args:
            t: [B], one value for all, or one per token [B, S, 1].

        Raises:
            ConfigError: `attn_kind` is not dense.
            ValueError: `conditional=False` before the negative prompt was encoded, or t is of another shape.
        """
        if attn_kind not in self.supported_attention:
            raise _dense_only(f"attn_kind '{attn_kind}'")
        conditioning = batch.conditioning if conditional else _negative(batch)
        levels = _levels(t, noisy_latents)
        given = batch.context.get(GIVEN)
        if given is not None:
            noisy_latents = torch.where(given[..., None], batch.context[CLEAN].to(noisy_latents.dtype), noisy_latents)
            per_token = levels if levels.ndim == 2 else levels[:, None]
            levels = torch.where(given, torch.zeros_like(per_token), per_token)
        return self.velocity(handle, noisy_latents, levels, {**conditioning, **batch.context}, batch.extras[LAYOUT])

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
        """x0 = x_t - sigma v, float32 at least; given tokens are the clean ones."""
        x0 = super().predict_x0(handle, noisy_latents, t, batch, conditional=conditional, attn_kind=attn_kind)
        given = batch.context.get(GIVEN)
        return x0 if given is None else torch.where(given[..., None], batch.context[CLEAN].to(x0.dtype), x0)

    def extract_features(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, conditional: bool
    ) -> list[Tensor]:
        """The outputs [B, tokens, channels] of the blocks at a third, two thirds and the end of the transformer."""
        return features_of(
            self._feature_blocks(handle),
            lambda: self.predict_noise(handle, noisy_latents, t, batch, conditional=conditional),
        )

    def feature_channels(self, handle: RoleHandle) -> tuple[int, ...]:
        """The transformer's width, once per feature map."""
        return (self.width(handle),) * len(self._feature_blocks(handle))

    def _feature_blocks(self, handle: RoleHandle) -> list[nn.Module]:
        blocks = self.blocks(handle)
        return [blocks[i] for i in sorted({len(blocks) // 3, 2 * len(blocks) // 3, len(blocks) - 1})]

    # --- sampling ---------------------------------------------------------------------------------------------------

    def prompt_batch(
        self, text: Tensor, negative: Tensor | None, layout: TokenLayout, *, frame_rate: float
    ) -> TrainingBatch:
        """What few-step sampling of one video conditions on; the latents are zeros.

        Args:
            text: the prompt's embedding [L, D].
            negative: that of the negative prompt; None without guidance.
            frame_rate: frames per second.
        """
        context = {FPS: torch.tensor([frame_rate], dtype=torch.float64, device=self.device)}
        embeddings = [text, negative] if negative is not None else [text]
        texts = [self.text_conditioning(one[None].to(self.device, torch.float32), None) for one in embeddings]
        return TrainingBatch(
            latents=torch.zeros(1, layout.total, self.folder.channels, device=self.device),
            conditioning=texts[0],
            negative_conditioning=texts[1] if negative is not None else None,
            context=context,
            extras={LAYOUT: layout},
        )


def _free_of_stream(free: Tensor, layout: TokenLayout) -> Tensor:
    """1 where a token has a loss, 0 where it is given, [B, S, 1]; scaled so that the video's tokens still sum to their number:
    a given frame takes nothing from the stream's part of the loss."""
    video, audio = free[:, : layout.video], free[:, layout.video :]
    return torch.cat([video * (layout.video / video.sum(dim=1, keepdim=True).clamp(min=1)), audio], dim=1)


def _for_batch(values: Mapping[str, Tensor], batch_size: int) -> dict[str, Tensor]:
    return {key: value.expand(batch_size, *value.shape[1:]) for key, value in values.items()}


def _negative(batch: TrainingBatch) -> dict[str, Tensor]:
    if batch.negative_conditioning is None:
        raise ValueError(
            "the batch has no negative conditioning: the negative prompt is encoded by on_train_start(), which "
            "must run before prepare_batch()"
        )
    return batch.negative_conditioning


def _levels(t: Tensor, latents: Tensor) -> Tensor:
    """[B], or per token [B, S]."""
    levels = t.to(latents.device)
    batch, tokens = latents.shape[:2]
    if levels.numel() == 1:
        return levels.reshape(1).expand(batch)
    if levels.numel() == levels.shape[0] == batch:
        return levels.reshape(-1)
    if tuple(levels.shape) == (batch, tokens, 1):
        return levels[..., 0]
    raise ValueError(
        f"t has shape {list(t.shape)} for latents {list(latents.shape)}: LTX takes one noise level per sample, [B], or one "
        "per token, [B, S, 1]"
    )


def _dense_only(asked: str) -> ConfigError:
    return ConfigError(
        Problem(
            f"{asked} asks for sparse attention",
            where="family 'ltx'",
            allowed="attn_kind: dense with VSA sparsity 0; this family has dense attention only",
        )
    )
