"""The model family `mochi`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_mochi import MochiTransformerBlock

from fastvideo_core import ModelComponents, RoleHandle, RoleManager, RoleOutline, RunConfig
from fastvideo_core.distributed import context
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.family import ParquetFamily
from fastvideo_data.path_sampler import PathSampler
from fastvideo_data.sampling_validator import SamplingValidator
from fastvideo_data.validation_prompts import prompts_of_run
from fastvideo_mochi.adapter import MochiAdapter
from fastvideo_mochi.config import MochiConfig
from fastvideo_mochi.encoder import MochiEncoder
from fastvideo_mochi.export import export
from fastvideo_mochi.folder import TRANSFORMER, load_transformer, outline
from fastvideo_mochi.latents import LatentScale
from fastvideo_mochi.sampler import MochiSampler, build_sampler
from fastvideo_mochi.text import TextEncoder
from fastvideo_mochi.tiny import write_tiny


class MochiFamily(ParquetFamily):
    """Mochi 1, text to video."""

    def build(self, cfg: RunConfig) -> ModelComponents:
        """The run's roles with their weights, the adapter, the validator when asked for, and the data.

        Autoencoder and text encoder are those of the first role. The text encoder goes when all captions are encoded.

        Raises:
            ConfigError: a role's path holds no Mochi pipeline, or validation has no prompts.
        """
        config, device = cfg.pipeline_config, context.device()
        assert isinstance(config, MochiConfig)
        names = cfg.family_roles(cfg.recipe.family)
        handles = {name: _role(cfg, name, device) for name in names}
        base, where = cfg.roles[names[0]].path, f"roles.{names[0]}.path"
        prompts = prompts_of_run(cfg.training)
        captions = ["", *dict.fromkeys(prompt.caption for prompt in prompts)]
        texts = PromptEmbeddings(TextEncoder(base, device, where), captions, keep_encoder=False)
        scale, bf16 = LatentScale.of(base, device), cfg.training.mixed_precision == "bf16"
        adapter = MochiAdapter(config.shift, scale, texts.get(""), device, autocast=bf16)
        validator = None
        if prompts:
            sampler = MochiSampler(base, config, adapter, scale, texts.get, device)
            validator = SamplingValidator(sampler, prompts, seed=cfg.training.seed)
        return ModelComponents(RoleManager(handles), adapter, validator, self.loader(cfg))

    def adapter_class(self) -> type[MochiAdapter]:
        return MochiAdapter

    def outline(self, cfg: RunConfig, role: str, *, latents_source: Any) -> RoleOutline:
        modules = outline(cfg.roles[role].path, f"roles.{role}.path")
        return RoleOutline(RoleHandle(role, modules, trainable=cfg.roles[role].trainable))

    def encoder(self, model_path: str, *, device: torch.device) -> MochiEncoder:
        return MochiEncoder(model_path, device)

    def sampler(self, model_path: str, pipeline_config: MochiConfig, *, device: torch.device) -> PathSampler:
        return build_sampler(model_path, pipeline_config, device)

    export = staticmethod(export)
    tiny = staticmethod(write_tiny)


def _role(cfg: RunConfig, name: str, device: torch.device) -> RoleHandle:
    role = cfg.roles[name]
    half = cfg.training.mixed_precision == "bf16" and not role.trainable
    dtype = torch.bfloat16 if half else torch.float32
    transformer = load_transformer(role.path, dtype=dtype, where=f"roles.{name}.path").to(device)
    return RoleHandle(
        name,
        {TRANSFORMER: transformer},
        family=cfg.recipe.family,
        trainable=role.trainable,
        block_classes=(MochiTransformerBlock,),
    )
