"""The model family `mochi`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLMochi, MochiTransformer3DModel
from diffusers.models.transformers.transformer_mochi import MochiTransformerBlock
from transformers import T5EncoderModel

from fastvideo_core import RunConfig
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.model_sampler import PathSampler
from fastvideo_diffusers.family import DiffusersFamily
from fastvideo_mochi.adapter import MochiAdapter
from fastvideo_mochi.config import MochiConfig
from fastvideo_mochi.folder import COMPONENTS, MochiFolder, open_folder
from fastvideo_mochi.sampler import GEOMETRY, SIZE, MochiSampler, build_sampler
from fastvideo_mochi.text import TextEncoder
from fastvideo_mochi.tiny import write_tiny


class MochiFamily(DiffusersFamily[MochiFolder, MochiAdapter]):
    """Mochi 1, text to video."""

    family = "mochi"
    adapter = MochiAdapter
    parts = COMPONENTS
    transformer = MochiTransformer3DModel
    block = MochiTransformerBlock
    vae = AutoencoderKLMochi
    text_model = T5EncoderModel
    geometry, size = GEOMETRY, SIZE

    def open_folder(self, path: str, *, where: str) -> MochiFolder:
        return open_folder(path, where=where)

    def caption_encoder(
        self, folder: MochiFolder, *, device: torch.device, dtype: torch.dtype, where: str
    ) -> TextEncoder:
        return TextEncoder(folder, device, where)

    def negative_prompt(self, cfg: RunConfig, own: str | None = None) -> str:
        return section(cfg).negative_text("", own)

    def run_adapter(self, cfg: RunConfig, prompts: PromptEmbeddings) -> MochiAdapter:
        return MochiAdapter(self.roles(cfg).base, flow_shift=section(cfg).shift, **self.settings(cfg, prompts))

    def run_sampler(self, cfg: RunConfig, adapter: MochiAdapter, prompts: PromptEmbeddings) -> MochiSampler:
        base = self.roles(cfg).base
        return MochiSampler(base, adapter=adapter, config=section(cfg), **self.sampling(cfg, prompts))

    def sampler(self, model_path: str, pipeline_config: Any, *, device: torch.device) -> PathSampler:
        return build_sampler(model_path, pipeline_config, device)

    tiny = staticmethod(write_tiny)


def section(cfg: RunConfig) -> MochiConfig:
    """The run's pipeline_config; the defaults where another family's is in its place."""
    return cfg.pipeline_config if isinstance(cfg.pipeline_config, MochiConfig) else MochiConfig()
