"""What LTX-Video and LTX-2 each have of their own, in one interface; everything else is written once for both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastvideo_core.config.training import TrainingArgs
from fastvideo_data.captions import CaptionEncoder
from fastvideo_data.encoder import LatentEncoder
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.identity import StoredEncoder
from fastvideo_diffusers.loading import check_weights, load_model, meta_model, outline_model
from fastvideo_diffusers.lora_formats import LoraFormat
from fastvideo_diffusers.sequence_parallel import Group
from fastvideo_ltx.adapter import LtxAdapter
from fastvideo_ltx.batches import data_free_video, stored_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout
from fastvideo_ltx.sampler import LtxSampler
from fastvideo_ltx.traits import Traits


class Generation(Traits, ABC):
    """A generation of LTX: its traits, and how its networks are loaded and called. Its one instance has no state.

    Attributes:
        encoders: whose weights decide what `preprocess` stores.
        decoders: the classes of what makes videos and sound of latents, by sub-folder.
        tokenizer_pads: whether its tokenizer must have a padding token of its own.
        transformer: the diffusers class of its transformer.
        block: the class of the transformer's blocks: the unit of sharding, checkpointing and compiling.
        adapter: the class of its adapter.
        sampler: the class of its sampler.
        lora_formats: other programs' formats of LoRA files for its transformer, by name.
    """

    encoders: ClassVar[tuple[StoredEncoder, ...]]
    decoders: ClassVar[Mapping[str, Any]]
    tokenizer_pads: ClassVar[bool] = True
    transformer: ClassVar[type[nn.Module]]
    block: ClassVar[type[nn.Module]]
    adapter: ClassVar[type[LtxAdapter]]
    sampler: ClassVar[type[LtxSampler]]
    lora_formats: ClassVar[Mapping[str, LoraFormat]]

    def frozen(self, config: LtxConfig) -> Callable[[str], bool] | None:
        """Which parameters of a trained transformer, by name, the run leaves as they are; None where there are none."""
        return None

    @abstractmethod
    def text_models(self, folder: LtxFolder) -> Mapping[str, Any]:
        """The classes of what makes text embeddings, by sub-folder."""

    @abstractmethod
    def read(self, path: str, index: Mapping[str, Any], *, where: str) -> LtxFolder:
        """The facts of a folder whose sub-folders are complete.

        Args:
            index: its model_index.json.
            where: how errors name the folder, its path included.

        Raises:
            ConfigError: it is damaged, or a variant that is not supported.
        """

    def check_latents(
        self, row: Mapping[str, Any], folder: LtxFolder, config: LtxConfig, training: TrainingArgs
    ) -> None:
        """Whether a row of the data can be trained on.

        Raises:
            DataError: its latents are missing, or do not fit the pipeline.
        """
        stored_video(row, folder, training)

    def layout(
        self, row: Mapping[str, Any], folder: LtxFolder, config: LtxConfig, training: TrainingArgs, *, stored: bool
    ) -> TokenLayout:
        """The tokens that a batch like `row` is trained on.

        Args:
            row: a raw batch; may be empty without `stored`.
            stored: whether its own latents are; else latents of the run's size.

        Raises:
            ConfigError: the run names no usable size.
            DataError: the latents are missing, or do not fit the pipeline.
        """
        if stored:
            return TokenLayout(*stored_video(row, folder, training).shape[2:])
        return data_free_video(row, folder, training)

    def text_settings(self, folder: LtxFolder) -> dict[str, str]:
        """What a stored text embedding depends on besides weights, by the keys of the encoder's description."""
        return {}

    def outline(self, path: str) -> nn.Module:
        """The transformer on the meta device; a diffusers ModelMixin."""
        outline: nn.Module = outline_model(self.transformer, path, TRANSFORMER)
        return outline

    def load_transformer(self, path: str, *, dtype: torch.dtype, device: torch.device, where: str) -> nn.Module:
        """The transformer, in eval mode, a module of its own at every call.

        Raises:
            ConfigError: the weights cannot be read, or do not fit the configuration.
        """
        transformer: nn.Module = load_model(
            self.transformer, path, TRANSFORMER, dtype=dtype, device=device, where=where
        )
        return transformer

    def meta_transformer(self, path: str, *, dtype: torch.dtype, where: str) -> nn.Module:
        """As `load_transformer`, with its parameters on meta.

        Raises:
            ConfigError: the configuration cannot be read.
        """
        transformer: nn.Module = meta_model(self.transformer, path, TRANSFORMER, dtype=dtype, where=where)
        return transformer

    def check_weights(self, folder: LtxFolder, *, where: str, encodes: bool, decodes: bool) -> None:
        """A pipeline's weights are those that its configurations describe, by the headers of their files; the tokenizer can be
        used.

        Args:
            encodes: whether its text encoder is used.
            decodes: whether its VAE is.

        Raises:
            ConfigError: they are not.
        """
        kinds = {
            TRANSFORMER: self.transformer,
            **(self.text_models(folder) if encodes else {}),
            **(self.decoders if decodes else {}),
        }
        check_weights(folder.path, kinds, where=where, tokenizer=encodes, tokenizer_pads=self.tokenizer_pads)

    @abstractmethod
    def evaluate(
        self,
        transformer: nn.Module,
        noisy: Tensor,
        t: Tensor,
        folder: LtxFolder,
        layout: TokenLayout,
        *,
        autocast: bool,
    ) -> Tensor:
        """The call that `LtxAdapter.token_velocity` makes, with text of torch.empty: of shapes, for estimates.

        Args:
            noisy: [B, S, C].
            t: [B], or per token [B, S].
        """

    @abstractmethod
    def split_tokens(self, transformer: nn.Module, group: Group) -> None:
        """See RoleHandle."""

    @abstractmethod
    def caption_encoder(
        self, folder: LtxFolder, *, device: torch.device, dtype: torch.dtype, where: str = "path"
    ) -> CaptionEncoder:
        """What makes the stored text embeddings of captions."""

    @abstractmethod
    def encoder(self, folder: LtxFolder, device: torch.device, dtype: torch.dtype) -> LatentEncoder:
        """What `preprocess` encodes with."""

    def export_notes(self, folder: LtxFolder, config: LtxConfig) -> list[str]:
        """What the user of an export must know of its plain pipeline."""
        return []

    def takes_timesteps(self, folder: LtxFolder) -> bool:
        """Whether the folder's pipeline samples on the timesteps that it is given, rather than on its own levels."""
        return False

    @abstractmethod
    def write_tiny(self, out: Path, *, seed: int, variant: str, **sizes: int) -> None:
        """A small random-weight pipeline in a new folder `out`; see `tiny.write_tiny_pipeline`."""


def generation_of(folder: LtxFolder) -> Generation:
    """How the networks of a folder are loaded and called."""
    generation = folder.traits
    assert isinstance(generation, Generation)
    return generation
