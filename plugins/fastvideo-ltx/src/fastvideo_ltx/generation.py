"""What LTX-Video and LTX-2 each have of their own, in one interface; everything else is written once for both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fastvideo_core.config.training import TrainingArgs
from fastvideo_data.captions import CaptionEncoder, PromptEmbeddings
from fastvideo_data.encoder import LatentEncoder
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.identity import StoredEncoder
from fastvideo_diffusers.loading import check_weights, load_model, meta_model, outline_model
from fastvideo_ltx.batches import data_free_video, stored_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout

if TYPE_CHECKING:
    from fastvideo_ltx.adapter import LtxAdapter
    from fastvideo_ltx.sampler import LtxSampler


class Generation(ABC):
    """A generation of LTX; its one instance has no state.

    Attributes:
        name: how messages call it.
        supported: what errors about an unusable pipeline offer instead.
        pipelines: the diffusers pipeline classes whose folders it reads.
        components: the sub-folders of such a folder.
        weighted: those of them that hold weights.
        encoders: whose weights decide what `preprocess` stores.
        text_models: the classes of what makes text embeddings, by sub-folder.
        decoders: the classes of what makes videos and sound of latents, by sub-folder.
        tokenizer_pads: whether its tokenizer must have a padding token of its own.
        streams: what it makes: the values of pipeline_config.streams, which are all of them by default.
        transformer: the diffusers class of its transformer.
        block: the class of the transformer's blocks: the unit of sharding, checkpointing and compiling.
        geometry: the videos that it encodes; its fps is the one of sampled videos where nothing else is said.
        size: of sampled videos whose prompt and run name none.
        negative_prompt: the one that Lightricks publish, which `negative_prompt: default` stands for.
        unguided: the arguments that turn off every guidance of its pipelines.
    """

    name: ClassVar[str]
    supported: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    components: ClassVar[tuple[str, ...]]
    weighted: ClassVar[tuple[str, ...]]
    encoders: ClassVar[tuple[StoredEncoder, ...]]
    text_models: ClassVar[Mapping[str, Any]]
    decoders: ClassVar[Mapping[str, Any]]
    tokenizer_pads: ClassVar[bool] = True
    streams: ClassVar[tuple[str, ...]]
    transformer: ClassVar[type[nn.Module]]
    block: ClassVar[type[nn.Module]]
    geometry: ClassVar[VideoGeometry]
    size: ClassVar[VideoSize]
    negative_prompt: ClassVar[str]
    unguided: ClassVar[str] = "guidance_scale=1.0"

    def chosen_streams(self, config: LtxConfig) -> tuple[str, ...]:
        """What the run trains and samples."""
        return self.streams if config.streams is None else config.streams

    def frame_rate(self, config: LtxConfig) -> float:
        """Frames per second of what names none."""
        return self.geometry.fps if config.fps is None else config.fps

    def frozen(self, config: LtxConfig) -> Callable[[str], bool] | None:
        """Which parameters of a trained transformer, by name, the run leaves as they are; None where there are none."""
        return None

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

    def check_weights(self, path: str, *, where: str, encodes: bool, decodes: bool) -> None:
        """A pipeline's weights are those that its configurations describe, by the headers of their files; the tokenizer can be
        used.

        Args:
            encodes: whether its text encoder is used.
            decodes: whether its VAE is.

        Raises:
            ConfigError: they are not.
        """
        kinds = {
            TRANSFORMER: self.transformer, **(self.text_models if encodes else {}), **(self.decoders if decodes else {}),
        }  # fmt: skip
        check_weights(path, kinds, where=where, tokenizer=encodes, tokenizer_pads=self.tokenizer_pads)

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
        """The call that `LtxAdapter.velocity` makes, with text of torch.empty: of shapes, for estimates.

        Args:
            noisy: [B, S, C].
            t: [B], or per token [B, S].
        """

    @abstractmethod
    def caption_encoder(
        self, folder: LtxFolder, *, device: torch.device, dtype: torch.dtype, where: str = "path"
    ) -> CaptionEncoder:
        """What makes the stored text embeddings of captions."""

    @abstractmethod
    def adapter(
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
    ) -> LtxAdapter:
        """See `LtxAdapter`."""

    @abstractmethod
    def sampler(
        self,
        folder: LtxFolder,
        *,
        adapter: LtxAdapter,
        config: LtxConfig,
        device: torch.device,
        prompts: PromptEmbeddings,
        size: VideoSize,
        autocast: bool,
    ) -> LtxSampler:
        """See `LtxSampler`."""

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
    def write_tiny(self, out: Path, *, seed: int, **sizes: int) -> None:
        """A small random-weight pipeline in a new folder `out`; see `tiny.write_tiny_pipeline`."""
