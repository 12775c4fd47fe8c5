"""The model family `wan`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

from fastvideo_core.config.run import LoraConfig, RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.demo import FamilyDemo
from fastvideo_core.contracts.family import WarpedSchedule
from fastvideo_core.contracts.roles import WeightSource
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.distributed import context
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.path_sampler import PathSampler
from fastvideo_data.video_sizes import VideoSize, fit_prompt
from fastvideo_diffusers.family import DiffusersFamily, halved
from fastvideo_diffusers.family_roles import takes_many_steps
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, encoder_identity
from fastvideo_diffusers.loading import stored_weights
from fastvideo_diffusers.stored_tensors import stored_text
from fastvideo_wan import loading
from fastvideo_wan.adapter import WanAdapter
from fastvideo_wan.batches import data_free_shape, stored_latents
from fastvideo_wan.config import NEGATIVE_PROMPT, WanConfig
from fastvideo_wan.encoder import WanEncoder
from fastvideo_wan.export import export_pipeline
from fastvideo_wan.export_lora import export_lora
from fastvideo_wan.folder import COMPONENTS, WanFolder, open_folder
from fastvideo_wan.network import predict_velocity
from fastvideo_wan.sampler import WanSampler, build_sampler
from fastvideo_wan.schedule import many_step_scheduler, resolve_flow_shift
from fastvideo_wan.sizes import GEOMETRY, SIZE
from fastvideo_wan.text import TextEncoder
from fastvideo_wan.tiny import write_tiny_pipeline


class WanFamily(DiffusersFamily[WanFolder, WanAdapter]):
    """Wan 2.1 text-to-video."""

    family = "wan"

    def adapter_class(self) -> type[WanAdapter]:
        return WanAdapter

    def resolve(self, cfg: RunConfig) -> WanConfig:
        """With the negative prompt in full."""
        return section(cfg).model_copy(update={"negative_prompt": self.negative_prompt(cfg)})

    # --- its pipelines, prompts and data --------------------------------------------------------------------------------

    def open_folder(self, path: str, *, where: str) -> WanFolder:
        return open_folder(path, where=where)

    def components(self, folder: WanFolder) -> Sequence[str]:
        return COMPONENTS

    def check_weights(self, folder: WanFolder, *, where: str, encodes: bool, decodes: bool) -> None:
        loading.check_weights(folder.path, where=where, encodes=encodes, decodes=decodes)

    def fit_prompt(self, cfg: RunConfig, prompt: ValidationPrompt) -> ValidationPrompt:
        return fit_prompt(prompt, SIZE.of_run(cfg.training), GEOMETRY)

    def check_schedule(self, cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> None:
        base = self.roles(cfg).base
        flow_shift = resolve_flow_shift(base, section(cfg))
        if cfg.training.log_validation and takes_many_steps(cfg):
            many_step_scheduler(base, flow_shift)

    def check_row(self, cfg: RunConfig, row: Mapping[str, Any], latents_source: LatentsSource | None) -> None:
        base = self.roles(cfg).base
        stored_text(row, width=base.text_dim, path=base.path)
        if latents_source == "data":
            stored_latents(row, base, cfg.training)
        elif latents_source == "zeros":
            data_free_shape(row, base, cfg.training)

    def data_sizes(self, cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[VideoSize]:
        base = self.roles(cfg).base
        shapes = [stored_latents(row, base, cfg.training).shape[2:] for row in rows if "vae_latent" in row]
        return [base.video_size(shape) for shape in shapes]

    def encoder_identity(
        self, cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool
    ) -> EncoderIdentity | None:
        """Text encoder, and VAE where the data's latents are trained on, of the first trained role's pipeline."""
        roles = self.roles(cfg)
        wanted = (VAE, TEXT_ENCODER) if latents_source == "data" else (TEXT_ENCODER,)
        where = f"roles.{roles.base_role}.path"
        identity = encoder_identity(roles.base.path, wanted, where=where, download=download)
        return None if identity is None else EncoderIdentity(roles.base_role, roles.base.path, identity)

    # --- its networks ---------------------------------------------------------------------------------------------------

    def load_network(self, folder: WanFolder, *, dtype: torch.dtype, device: torch.device, where: str) -> nn.Module:
        network: nn.Module = loading.load_transformer(folder.path, dtype=dtype, device=device, where=where)
        return network

    def meta_network(self, folder: WanFolder, *, dtype: torch.dtype, where: str) -> nn.Module:
        network: nn.Module = loading.meta_transformer(folder.path, dtype=dtype, where=where)
        return network

    def network_weights(self, folder: WanFolder, *, where: str) -> WeightSource:
        return stored_weights(folder.path, TRANSFORMER, where=where)

    def block_classes(self, folder: WanFolder) -> tuple[type[nn.Module], ...]:
        return (WanTransformerBlock,)

    def call(
        self, cfg: RunConfig, folder: WanFolder, network: nn.Module, latents_source: LatentsSource | None
    ) -> Callable[[int], Tensor]:
        """On the largest latents that the run can meet."""
        rows = self.rows(cfg)
        shapes: list[Sequence[int]]
        if latents_source == "zeros":
            shapes = [data_free_shape(row, folder, cfg.training) for row in rows or ({},)]
        else:
            shapes = [stored_latents(row, folder, cfg.training).shape[1:] for row in rows]
            shapes = shapes or [data_free_shape({}, folder, cfg.training)]
        shape = max(shapes, key=math.prod)

        def evaluate(samples: int) -> Tensor:
            noisy, t = torch.empty(samples, *shape), torch.empty(samples)
            text = torch.empty(samples, folder.text_length, folder.text_dim)
            return predict_velocity(network, noisy, t, text, autocast=halved(cfg))

        return evaluate

    # --- a run ----------------------------------------------------------------------------------------------------------

    def caption_encoder(
        self, folder: WanFolder, *, device: torch.device, dtype: torch.dtype, where: str
    ) -> TextEncoder:
        return TextEncoder(folder.path, device=device, dtype=dtype, where=where)

    def negative_prompt(self, cfg: RunConfig, own: str | None = None) -> str:
        return section(cfg).negative_text(NEGATIVE_PROMPT, own)

    def run_adapter(self, cfg: RunConfig, prompts: PromptEmbeddings) -> WanAdapter:
        base = self.roles(cfg).base
        return WanAdapter(
            base,
            flow_shift=resolve_flow_shift(base, section(cfg)),
            device=context.device(),
            training=cfg.training,
            autocast=halved(cfg),
            prompts=prompts,
            negative_prompt=self.negative_prompt(cfg),
        )

    def run_sampler(self, cfg: RunConfig, adapter: WanAdapter, prompts: PromptEmbeddings) -> WanSampler:
        return WanSampler(
            self.roles(cfg).base,
            config=section(cfg),
            flow_shift=adapter.flow_shift,
            device=context.device(),
            prompts=prompts,
            size=SIZE.of_run(cfg.training),
            autocast=halved(cfg),
        )

    # --- commands -------------------------------------------------------------------------------------------------------

    def encoder(self, model_path: str, *, device: torch.device) -> WanEncoder:
        return WanEncoder(model_path, device=device)

    def sampler(self, model_path: str, pipeline_config: WanConfig, *, device: torch.device) -> PathSampler:
        return build_sampler(model_path, pipeline_config, device=device)

    def export(
        self,
        base_path: str,
        out: Path,
        modules: dict[str, dict[str, Tensor]],
        *,
        pipeline_config: WanConfig,
        student_schedule: WarpedSchedule | None,
    ) -> list[str]:
        return export_pipeline(
            base_path, out, modules, pipeline_config=pipeline_config, student_schedule=student_schedule
        )

    def export_lora(
        self, base_path: str, out: Path, adapters: dict[str, dict[str, Tensor]], *, lora: LoraConfig
    ) -> list[str]:
        return export_lora(base_path, out, adapters, lora=lora)

    tiny = staticmethod(write_tiny_pipeline)

    def demo(self, *, fast: bool) -> FamilyDemo:
        from fastvideo_wan.demo.family import wan_demo  # brings a trained autoencoder, which only the demo reads

        return wan_demo(fast=fast)


def section(cfg: RunConfig) -> WanConfig:
    """The run's pipeline_config; the defaults where another family's is in its place."""
    return cfg.pipeline_config if isinstance(cfg.pipeline_config, WanConfig) else WanConfig()
