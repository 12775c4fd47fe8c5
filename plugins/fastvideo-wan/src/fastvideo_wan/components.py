"""What the family `wan` gives to a run."""

from __future__ import annotations

import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import nn

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.distributed import context
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.sampling_validator import SamplingValidator
from fastvideo_data.validation_prompts import prompts_of_run
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.loading import stored_weights
from fastvideo_wan.adapter import WanAdapter
from fastvideo_wan.config import NEGATIVE_PROMPT, WanConfig
from fastvideo_wan.loading import load_transformer, meta_transformer
from fastvideo_wan.run import open_roles
from fastvideo_wan.sampler import WanSampler
from fastvideo_wan.schedule import resolve_flow_shift
from fastvideo_wan.sizes import SIZE
from fastvideo_wan.text import TextEncoder


def build_wan_components(cfg: RunConfig) -> ModelComponents:
    """The run's Wan roles, the adapter and, when asked for, the validator.

    With one process the roles' weights are on its device; with several their networks are on meta, to be read after
    sharding. Trainable roles are float32; frozen ones bfloat16 when training.mixed_precision is bf16. VAE, scheduler and text
    encoder come from the first trainable role's pipeline.

    Raises:
        ConfigError: a role's path holds no Wan 2.1 text-to-video pipeline, or roles do not fit each other.
        DataError: the validation prompts cannot be used.
    """
    roles = open_roles(cfg)
    base = roles.base
    config = cfg.pipeline_config if isinstance(cfg.pipeline_config, WanConfig) else WanConfig()
    flow_shift = resolve_flow_shift(base, config)
    device = context.device()
    bf16 = cfg.training.mixed_precision == "bf16"

    negative = config.negative_text(NEGATIVE_PROMPT)
    validation = prompts_of_run(cfg.training)
    captions = [negative, "", *(prompt.caption for prompt in validation)]
    captions += [config.negative_text(NEGATIVE_PROMPT, prompt.negative_prompt) for prompt in validation]
    encoder = TextEncoder(
        base.path,
        device=device,
        dtype=torch.bfloat16 if bf16 else torch.float32,
        where=f"roles.{roles.base_role}.path",
    )
    prompts = PromptEmbeddings(encoder, captions, keep_encoder=False)

    validator = None
    if cfg.training.log_validation:
        sampler = WanSampler(
            base,
            config=config,
            flow_shift=flow_shift,
            device=device,
            prompts=prompts,
            size=SIZE.of_run(cfg.training),
            autocast=bf16,
        )
        validator = SamplingValidator(sampler, validation, seed=cfg.training.seed)

    adapter = WanAdapter(
        base,
        flow_shift=flow_shift,
        device=device,
        training=cfg.training,
        autocast=bf16,
        prompts=prompts,
        negative_prompt=negative,
    )
    handles = {name: _role(cfg, name, device, bf16) for name in roles.folders}
    return ModelComponents(bundle=RoleManager(handles), adapter=adapter, validator=validator)


def _role(cfg: RunConfig, name: str, device: torch.device, bf16: bool) -> RoleHandle:
    role = cfg.roles[name]
    dtype = torch.bfloat16 if bf16 and not role.trainable else torch.float32
    place = f"roles.{name}.path"
    weights = None
    if context.world_size() > 1:
        transformer = meta_transformer(role.path, dtype=dtype, where=place)
        weights = stored_weights(role.path, TRANSFORMER, where=place)
    else:
        transformer = load_transformer(role.path, dtype=dtype, device=device, where=place)
    transformer.requires_grad_(role.trainable).train(role.trainable)
    return RoleHandle(
        name=name,
        modules={TRANSFORMER: transformer},
        family=cfg.role_family(name),
        trainable=role.trainable,
        block_classes=(WanTransformerBlock,),
        weights=weights,
        bfloat16_classes=(nn.Linear,) if bf16 and role.trainable else (),
    )
