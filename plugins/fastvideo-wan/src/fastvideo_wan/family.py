"""The model family `wan`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn
from transformers import CLIPVisionModel, UMT5EncoderModel

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.demo import FamilyDemo
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ConfigError, Problem, UserError
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.model_sampler import PathSampler
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.adapter import SPARSITY
from fastvideo_diffusers.family import DiffusersFamily, halved
from fastvideo_diffusers.first_frames import check_first_frames
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, StoredEncoder
from fastvideo_diffusers.loading import check_model
from fastvideo_diffusers.lora_formats import LoraFormat
from fastvideo_diffusers.schedule_fit import timestep_shift
from fastvideo_diffusers.scheduler_shift import shifted_scheduler
from fastvideo_diffusers.sequence_parallel import Group
from fastvideo_diffusers.video_limits import attends_sparsely
from fastvideo_wan.adapter import WanAdapter
from fastvideo_wan.batches import stored_latents
from fastvideo_wan.config import NEGATIVE_PROMPT, STUDENT, WanConfig
from fastvideo_wan.encoder import WanEncoder, image_encoders
from fastvideo_wan.export import export_pipeline
from fastvideo_wan.export_lora import export_lora
from fastvideo_wan.first_frame import token_levels
from fastvideo_wan.folder import WanFolder, open_folder
from fastvideo_wan.image_batches import check_length, given_frames, image_tensors
from fastvideo_wan.image_conditions import IMAGE_ENCODER, image_channels
from fastvideo_wan.loading import load_transformer, meta_transformer, transformer_class
from fastvideo_wan.lora_formats import FORMATS
from fastvideo_wan.network import predict_velocity, split_tokens
from fastvideo_wan.sampler import WanSampler, build_sampler
from fastvideo_wan.schedule import resolve_flow_shift
from fastvideo_wan.sparse import (
    GatedTransformer,
    add_gates,
    calling,
    check_tiles,
    estimated_call,
    with_sparse_attention,
)
from fastvideo_wan.text import TextEncoder
from fastvideo_wan.tiny import write_tiny_pipeline


class WanFamily(DiffusersFamily[WanFolder, WanAdapter]):
    """Wan 2.1 and Wan 2.2 (A14B, TI2V-5B), text-to-video and image-to-video; all roles of a run have the same latents."""

    family = "wan"

    adapter = WanAdapter
    transformer = WanTransformer3DModel
    block = WanTransformerBlock
    vae = AutoencoderKLWan
    text_model = UMT5EncoderModel

    def resolve(self, cfg: RunConfig, *, latents_source: LatentsSource | None) -> WanConfig:
        """With the negative prompt in full, and the sparsity that the student is sampled with."""
        resolved: dict[str, Any] = {"negative_prompt": self.negative_prompt(cfg)}
        if attends_sparsely(cfg) and section(cfg).student_sparsity is None:
            resolved["student_sparsity"] = cfg.training.VSA_sparsity
        return section(cfg).model_copy(update=resolved)

    # --- its pipelines, prompts and data --------------------------------------------------------------------------------

    def open_folder(self, path: str, *, where: str) -> WanFolder:
        return open_folder(path, where=where)

    def video_size(self, cfg: RunConfig) -> VideoSize:
        return self.roles(cfg).base.usual.size

    def video_geometry(self, cfg: RunConfig) -> VideoGeometry:
        return self.roles(cfg).base.geometry

    def components(self, folder: WanFolder) -> Sequence[str]:
        return folder.components

    def check_schedule(
        self,
        cfg: RunConfig,
        rows: Sequence[Mapping[str, Any]],
        *,
        latents_source: LatentsSource | None,
        many_steps: bool,
    ) -> None:
        base = self.roles(cfg).base
        flow_shift = resolve_flow_shift(base, section(cfg))
        folders = self.roles(cfg).folders.values()
        if section(cfg).guidance_scale_2 is not None and all(folder.boundary_ratio is None for folder in folders):
            found = "a guidance scale for the second network, and every role has one network"
            raise ConfigError(Problem(found, "pipeline_config.guidance_scale_2", fix="remove it"))
        self._check_gates(cfg)
        if section(cfg).first_frame_probability > 0 and not base.expand_timesteps:
            found = f"first frames are kept clean, which the network of {base.path} cannot take"
            where, allowed = "pipeline_config.first_frame_probability", "0, or a TI2V pipeline (expand_timesteps)"
            raise ConfigError(Problem(found, where, allowed=allowed, fix="remove it"))
        if cfg.training.log_validation and many_steps:
            shifted_scheduler(base, flow_shift)

    def _check_gates(self, cfg: RunConfig) -> None:
        """Gates are trained and used where a role that is trained has some, and new ones leave what it computes as it is."""
        own, sparsity = section(cfg).sparse_gates, section(cfg).student_sparsity
        if sparsity is not None and not attends_sparsely(cfg):
            found = "found a sparsity, and the student's attention is dense"
            raise ConfigError(Problem(found, "pipeline_config.student_sparsity", fix="remove it"))
        for role, folder in self.roles(cfg).folders.items():
            gated = self.network_class(folder, TRANSFORMER) is GatedTransformer
            if role == _sparse_owner(cfg):
                key, lacks = "pipeline_config.sparse_gates", not gated and SPARSITY in folder.marked
                if gated and not own:
                    raise ConfigError(Problem(f"found false, and {folder.path} has gates", key, fix="remove it"))
                if lacks and own:
                    found = f"{folder.path} was trained without gates: gates of zero would take its coarse stage away"
                    raise ConfigError(Problem(found, key, allowed="false", fix="set it"))
            elif gated and cfg.roles[role].trainable and cfg.roles[role].share is None:
                found = f"{folder.path} has the gates of sparse attention, which dense attention does not use"
                fix = "set method_config.attn_kind: vsa" if role == STUDENT else "start it from a folder without gates"
                raise ConfigError(Problem(found, f"roles.{role}.path", fix=fix))

    def network_class(self, folder: WanFolder, name: str) -> Any:
        return transformer_class(folder.path, name, where="path")

    def timestep_shift(self, cfg: RunConfig) -> Callable[[Tensor], Tensor]:
        base = self.roles(cfg).base
        return timestep_shift(resolve_flow_shift(base, section(cfg)), base.num_train_timesteps)

    def stored_latents(self, cfg: RunConfig, row: Mapping[str, Any]) -> Tensor:
        return stored_latents(row, self.roles(cfg).base, cfg.training)

    def check_weights(self, folder: WanFolder, *, where: str, encodes: bool, decodes: bool) -> None:
        super().check_weights(folder, where=where, encodes=encodes, decodes=decodes)
        if encodes and folder.images is not None and folder.images.features is not None:
            check_model(CLIPVisionModel, folder.path, IMAGE_ENCODER, where=where)

    def wanted_tensors(self, cfg: RunConfig) -> Sequence[str]:
        """Those of the images too, where the networks are given some."""
        images = None
        with suppress(UserError):  # what is wrong with the roles is told where they are checked
            images = self.roles(cfg).base.images
        return (*super().wanted_tensors(cfg), *image_tensors(images))

    def check_row(self, cfg: RunConfig, row: Mapping[str, Any], latents_source: LatentsSource | None) -> None:
        super().check_row(cfg, row, latents_source)
        base = self.roles(cfg).base
        if section(cfg).first_frame_probability > 0:
            if latents_source == "trajectory":
                section(cfg).check_no_first_frames()
            stored = self.stored_latents(cfg, row)
            if latents_source == "zeros":
                check_first_frames(stored.shape[3:], self.data_free_latents(cfg, row)[1:])
        if attends_sparsely(cfg) and latents_source is not None:
            check_tiles(self.largest_latents(cfg, latents_source), base.patch_size, cfg.training.VSA_sparsity)
        if base.images is not None and latents_source is not None:
            check_length(base, cfg.training)
            zeros = latents_source == "zeros"
            size = self.data_free_latents(cfg, row) if zeros else self.stored_latents(cfg, row).shape[2:]
            given_frames(row, base, (1, base.channels, *size))

    def encoders(self, cfg: RunConfig, latents_source: LatentsSource | None) -> Sequence[StoredEncoder]:
        wanted, images = super().encoders(cfg, latents_source), self.roles(cfg).base.images
        if images is not None:
            return image_encoders(images)
        return (VAE, TEXT_ENCODER) if section(cfg).first_frame_probability > 0 else wanted

    # --- its networks ---------------------------------------------------------------------------------------------------

    def load_network(
        self, folder: WanFolder, *, dtype: torch.dtype, device: torch.device, where: str, name: str = TRANSFORMER
    ) -> nn.Module:
        network: nn.Module = load_transformer(folder.path, dtype=dtype, device=device, where=where, name=name)
        return network

    def meta_network(self, folder: WanFolder, *, dtype: torch.dtype, where: str, name: str = TRANSFORMER) -> nn.Module:
        network: nn.Module = meta_transformer(folder.path, dtype=dtype, where=where, name=name)
        return network

    def split_tokens(self, network: nn.Module, group: Group) -> None:
        split_tokens(cast("WanTransformer3DModel", network), group)

    def token_counts(self, folder: WanFolder, latents: Sequence[int]) -> Mapping[str, int]:
        return {"tokens": math.prod(size // patch for size, patch in zip(latents, folder.patch_size, strict=True))}

    def lora_formats(self, folder: WanFolder) -> Mapping[str, LoraFormat]:
        return FORMATS

    def call(
        self, cfg: RunConfig, folder: WanFolder, network: nn.Module, latents_source: LatentsSource | None
    ) -> Callable[[int], Tensor]:
        size, images = self.largest_latents(cfg, latents_source), folder.images
        shape = (folder.channels, *size)

        def evaluate(samples: int) -> Tensor:
            noisy, t = torch.empty(samples, *shape), torch.empty(samples)
            if section(cfg).first_frame_probability > 0:  # a given first frame has a level of its own
                t = token_levels(t[:, None].expand(samples, shape[1]), noisy.shape, folder)
            text = torch.empty(samples, folder.text_length, folder.text_dim)
            more = {}
            if images is not None:
                channels = image_channels(folder.channels, folder.temporal_factor)
                more["condition"] = torch.empty(samples, channels, *size)
                if images.features is not None:
                    more["features"] = torch.empty(samples, 1 + images.both_ends, *images.features)
            with calling(network, sparse):
                return predict_velocity(network, noisy, t, text, **more, autocast=halved(cfg))

        sparse = estimated_call(network, shape, cfg.training.VSA_sparsity)
        return evaluate

    def _role(self, cfg: RunConfig, name: str, *, on_meta: bool) -> RoleHandle:
        if name != _sparse_owner(cfg):
            return super()._role(cfg, name, on_meta=on_meta)
        return with_sparse_attention(super()._role(cfg, name, on_meta=True))

    def grown(self, cfg: RunConfig, name: str, network: nn.Module) -> nn.Module:
        return self.adaptable(network) if name == _sparse_owner(cfg) and section(cfg).sparse_gates else network

    def adaptable(self, network: nn.Module) -> nn.Module:
        add_gates(cast("WanTransformer3DModel", network))
        return network

    # --- a run ----------------------------------------------------------------------------------------------------------

    def caption_encoder(
        self, folder: WanFolder, *, device: torch.device, dtype: torch.dtype, where: str
    ) -> TextEncoder:
        return TextEncoder(folder.path, device=device, dtype=dtype, where=where)

    def negative_prompt(self, cfg: RunConfig, own: str | None = None) -> str:
        return section(cfg).negative_text(NEGATIVE_PROMPT, own)

    def run_adapter(self, cfg: RunConfig, prompts: PromptEmbeddings) -> WanAdapter:
        base = self.roles(cfg).base
        flow_shift = resolve_flow_shift(base, section(cfg))
        return WanAdapter(
            base,
            config=section(cfg),
            boundary_ratios=self._boundary_ratios(cfg),
            flow_shift=flow_shift,
            **self.settings(cfg, prompts),
        )

    def run_sampler(self, cfg: RunConfig, adapter: WanAdapter, prompts: PromptEmbeddings) -> WanSampler:
        base, shift = self.roles(cfg).base, adapter.flow_shift
        return WanSampler(
            base,
            boundary_ratios=self._boundary_ratios(cfg),
            config=section(cfg),
            flow_shift=shift,
            sparsity=self.resolve(cfg, latents_source=None).student_sparsity,
            **self.sampling(cfg, prompts),
        )

    def _boundary_ratios(self, cfg: RunConfig) -> dict[str, float]:
        """By role, of those with two networks."""
        folders = self.roles(cfg).folders
        return {name: ratio for name, folder in folders.items() if (ratio := folder.boundary_ratio) is not None}

    # --- commands -------------------------------------------------------------------------------------------------------

    def encoder(self, model_path: str, *, device: torch.device) -> WanEncoder:
        return WanEncoder(model_path, device=device)

    def sampler(self, model_path: str, pipeline_config: WanConfig, *, device: torch.device) -> PathSampler:
        return build_sampler(model_path, pipeline_config, device=device)

    export = staticmethod(export_pipeline)
    export_lora = staticmethod(export_lora)
    tiny = staticmethod(write_tiny_pipeline)

    def demo(self, *, fast: bool) -> FamilyDemo:
        from fastvideo_wan.demo.family import wan_demo  # brings a trained autoencoder, which only the demo reads

        return wan_demo(fast=fast)


def _sparse_owner(cfg: RunConfig) -> str | None:
    """The role whose networks the student calls with sparse attention: itself, or whose it shares."""
    student = cfg.roles.get(STUDENT)
    return (student.share or STUDENT) if student is not None and attends_sparsely(cfg) else None


def section(cfg: RunConfig) -> WanConfig:
    """The run's pipeline_config; the defaults where another family's is in its place."""
    return cfg.pipeline_config if isinstance(cfg.pipeline_config, WanConfig) else WanConfig()
