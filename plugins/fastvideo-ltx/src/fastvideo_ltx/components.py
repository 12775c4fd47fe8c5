"""What the family `ltx` gives to a run."""

from __future__ import annotations

import torch
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
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.generation import Generation
from fastvideo_ltx.run import open_roles, run_flow_shift, section


def build_ltx_components(cfg: RunConfig) -> ModelComponents:
    """The run's LTX roles, the adapter and, when asked for, the validator.

    With one process the roles' weights are on its device; with several their networks are on meta, to be read after
    sharding. Trainable roles are float32; frozen ones bfloat16 when training.mixed_precision is bf16. VAE, scheduler and text
    encoder come from the first trainable role's pipeline, and the generation too.

    Raises:
        ConfigError: a role's path holds no LTX pipeline, or roles do not fit each other.
        DataError: the validation prompts cannot be used.
    """
    roles = open_roles(cfg)
    base, generation = roles.base, roles.generation
    config = section(cfg)
    device = context.device()
    bf16 = cfg.training.mixed_precision == "bf16"

    published = generation.negative_prompt
    validation = prompts_of_run(cfg.training)
    captions = [config.negative_text(published), "", *(prompt.caption for prompt in validation)]
    captions += [config.negative_text(published, prompt.negative_prompt) for prompt in validation]
    encoder = generation.caption_encoder(
        base,
        device=device,
        dtype=torch.bfloat16 if bf16 else torch.float32,
        where=f"roles.{roles.base_role}.path",
    )
    prompts = PromptEmbeddings(encoder, captions, keep_encoder=False)

    adapter = generation.adapter(
        base,
        config=config,
        flow_shift=run_flow_shift(cfg, roles),
        device=device,
        training=cfg.training,
        autocast=bf16,
        prompts=prompts,
        negative_prompt=config.negative_text(published),
    )
    validator = None
    if cfg.training.log_validation:
        sampler = generation.sampler(
            base,
            adapter=adapter,
            config=config,
            device=device,
            prompts=prompts,
            size=generation.size.of_run(cfg.training),
            autocast=bf16,
        )
        validator = SamplingValidator(sampler, validation, seed=cfg.training.seed)
    handles = {name: _role(cfg, name, generation, device, bf16, config) for name in roles.folders}
    return ModelComponents(bundle=RoleManager(handles), adapter=adapter, validator=validator)


def _role(
    cfg: RunConfig, name: str, generation: Generation, device: torch.device, bf16: bool, config: LtxConfig
) -> RoleHandle:
    role = cfg.roles[name]
    dtype = torch.bfloat16 if bf16 and not role.trainable else torch.float32
    place = f"roles.{name}.path"
    weights = None
    if context.world_size() > 1:
        transformer = generation.meta_transformer(role.path, dtype=dtype, where=place)
        weights = stored_weights(role.path, TRANSFORMER, where=place)
    else:
        transformer = generation.load_transformer(role.path, dtype=dtype, device=device, where=place)
    transformer.requires_grad_(role.trainable).train(role.trainable)
    return RoleHandle(
        name=name,
        modules={TRANSFORMER: transformer},
        family=cfg.role_family(name),
        trainable=role.trainable,
        block_classes=(generation.block,),
        weights=weights,
        bfloat16_classes=(nn.Linear,) if bf16 and role.trainable else (),
        frozen=generation.frozen(config),
    )
