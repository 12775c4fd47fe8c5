"""Captions to what LTX-2's network attends to: Gemma, the checkpoint's projection, then its connectors.

Cached is what comes out of the projection: one vector per token of the caption. Gemma's own hidden states (all layers of
them) would be fifty times larger; behind the connectors every caption is 1024 tokens long.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fastvideo_data.captions import CaptionCut, cut_of
from fastvideo_diffusers.lazy_weights import LazyWeights
from fastvideo_ltx.adapter import TEXT, TEXT_MASK
from fastvideo_ltx.ltx2.loading import load_connectors, load_text_encoder
from fastvideo_ltx.ltx2.network import AUDIO_TEXT

TEXT_LENGTH = 1024
"""Tokens of a caption, padded on the left, as LTX2Pipeline encodes it."""


class GemmaCaptions:
    """Gemma and the projection of a pipeline; the weights are loaded at the first caption and can be let go of.

    Args:
        path: folder or hub id of the pipeline.
        kind: class of its text encoder.
        device: where the encoder runs.
        dtype: of its weights.
        where: how errors name the place that gave the path.
    """

    def __init__(self, path: str, kind: str, *, device: torch.device, dtype: torch.dtype, where: str) -> None:
        def load() -> _GemmaProjection:
            tokenizer, gemma = load_text_encoder(path, kind, dtype=dtype, device=device, where=where)
            return _GemmaProjection(tokenizer, gemma, load_connectors(path, dtype=dtype, device=device, where=where))

        self._projection = LazyWeights(load, device)

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its features [L, D], L <= 1024, without padding, on the encoder's device.

        One caption at a time, so that its features do not depend on which others are encoded with it.
        """
        return [self.module().features(caption) for caption in captions]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        return self.module().cut(caption)

    def module(self) -> _GemmaProjection:
        """Text encoder and projection as one module: every weight that a caption's features depend on."""
        return self._projection.get()

    def free(self) -> None:
        """Lets go of the weights; the next `encode` loads them again."""
        self._projection.free()


class _GemmaProjection(nn.Module):
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        gemma: PreTrainedModel,
        connectors: LTX2TextConnectors,
    ) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self.gemma = gemma
        # What is left of the connectors is their projection: its forward then ends where theirs begin.
        connectors.video_connector = _Nothing()
        connectors.audio_connector = _Nothing()
        self.projection = connectors
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def cut(self, caption: str) -> CaptionCut | None:
        """What `features` does not see of a caption; None when it sees all."""
        return cut_of(self._tokenizer, caption.strip(), TEXT_LENGTH)

    @torch.no_grad()
    def features(self, caption: str) -> Tensor:
        """[L, D]: the projection of one caption; with a projection per stream, both side by side."""
        tokens = self._tokenizer(
            [caption.strip()],
            padding="max_length",
            max_length=TEXT_LENGTH,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        ).to(self.gemma.device)
        mask = tokens.attention_mask
        layers = self.gemma(input_ids=tokens.input_ids, attention_mask=mask, output_hidden_states=True).hidden_states
        states = torch.stack(layers, dim=-1).flatten(2)  # [1, L, width x layers]
        video, audio, _ = self.projection(states.to(self.gemma.dtype), mask, padding_side="left")
        both = torch.cat([video, audio], dim=-1) if self.projection.config.per_modality_projections else video
        kept: Tensor = both[0, mask[0].bool()]
        return kept


class _Nothing(nn.Module):
    """A connector that connects nothing."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        return hidden_states, attention_mask


class Connectors:
    """The connectors of a pipeline, frozen: from the features of captions to what both streams attend to.

    Args:
        path: folder or hub id of the pipeline.
        device: where they run.
        dtype: of their weights.
    """

    def __init__(self, path: str, *, device: torch.device, dtype: torch.dtype) -> None:
        self._path = path
        self.device = device
        self._dtype = dtype
        self._loaded: LTX2TextConnectors | None = None

    @torch.no_grad()
    def connect(self, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The conditioning of both streams.

        Args:
            features: [B, 1024, D], padded on the left.
            mask: which of them are valid, [B, 1024] of 0 and 1.

        Returns:
            `text` [B, 1024, D] and `audio_text` [B, 1024, D'] in the connectors' dtype, `text_mask` int64 [B, 1024].
        """
        connectors = self._module()
        video = audio = features = features.to(self.device, self._dtype)
        config = connectors.config
        if config.per_modality_projections:
            video, audio = features[..., : config.video_hidden_dim], features[..., config.video_hidden_dim :]
        # As in LTX2TextConnectors.forward: masked positions get the dtype's most negative number.
        present = mask.to(self.device, torch.int64)
        blocked = (present - 1).to(self._dtype)[:, None, None, :] * torch.finfo(self._dtype).max
        text, left = connectors.video_connector(video, blocked)
        text_mask = (left < 1e-6).to(torch.int64).reshape(present.shape)
        audio_text, _ = connectors.audio_connector(audio, blocked)
        return {TEXT: text * text_mask[..., None], AUDIO_TEXT: audio_text, TEXT_MASK: text_mask}

    def _module(self) -> LTX2TextConnectors:
        if self._loaded is None:
            self._loaded = load_connectors(self._path, dtype=self._dtype, device=self.device)
            for name in [name for name, _ in self._loaded.named_children() if name.endswith("text_proj_in")]:
                delattr(self._loaded, name)  # half of the weights; the features are behind it
        return self._loaded


def pad_left(features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """[B, L, D] as ([B, 1024, D] with every caption at the end, mask [B, 1024] of 0 and 1).

    Args:
        lengths: valid tokens of each sample [B]; None is L for all.
    """
    batch, longest, width = features.shape
    padded = features.new_zeros(batch, TEXT_LENGTH, width)
    mask = torch.zeros(batch, TEXT_LENGTH, dtype=torch.int64, device=features.device)
    for sample, length in enumerate([longest] * batch if lengths is None else lengths.tolist()):
        if length:
            kept = min(length, TEXT_LENGTH)
            padded[sample, -kept:] = features[sample, :kept]
            mask[sample, -kept:] = 1
    return padded, mask
