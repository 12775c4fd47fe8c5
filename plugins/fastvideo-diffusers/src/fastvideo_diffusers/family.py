"""The base of families whose roles are folders of a diffusers pipeline."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from fastvideo_core.config.run import LoraConfig, MergedLora, RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.family import ModelComponents, RoleOutline, WarpedSchedule
from fastvideo_core.contracts.flow_adapter import FlowMatchingAdapter
from fastvideo_core.contracts.roles import RoleHandle, RoleManager, WeightSource
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.captions import CaptionEncoder, PromptEmbeddings
from fastvideo_data.encoder import LatentEncoder
from fastvideo_data.model_sampler import FamilySampler
from fastvideo_data.validation_prompts import prompts_of_run
from fastvideo_data.video_validator import SamplingValidator
from fastvideo_diffusers import loading
from fastvideo_diffusers.encoder import PipelineEncoder
from fastvideo_diffusers.export import export_pipeline
from fastvideo_diffusers.family_checks import CheckedPipelines
from fastvideo_diffusers.folder import TRANSFORMER, PipelineFolder
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE
from fastvideo_diffusers.initial_lora import initial_adapters
from fastvideo_diffusers.lora_file import LoraFile, read_lora_file
from fastvideo_diffusers.lora_formats import LoraFormat
from fastvideo_diffusers.merge_lora import LoraWeights
from fastvideo_diffusers.quantised import FORMS, quantise
from fastvideo_diffusers.sequence_parallel import Group

F = TypeVar("F", bound=PipelineFolder)
A = TypeVar("A", bound=FlowMatchingAdapter)


class DiffusersFamily(CheckedPipelines[F], Generic[F, A]):
    """A family of diffusers pipelines on parquet data: pipelines are opened once, and roles are their transformers.

    With one process the weights of roles that are float32 are on its device; else networks are on meta, to be read when placed.
    Weights that are trained are float32; frozen ones, also under LoRA adapters, bfloat16 when training.mixed_precision is bf16,
    or as `roles.X.base_precision` says. VAE, scheduler and text encoder come from the first trainable role's pipeline.

    A family of one plain pipeline names its classes and sizes; one of several pipelines, or with other latents than
    [B, C, T, H, W], overrides the methods that use them.

    Attributes:
        family: the family's name.
        adapter: the class of its adapter.
        parts: the sub-folders of a pipeline.
        transformer: the diffusers class of a role's network, and `block` that of its blocks: the unit of sharding, activation
            checkpointing and compiling.
        vae: the diffusers class of its autoencoder.
        text_model: the transformers class of its text encoder.
        geometry: the videos that it encodes, and `size` that of sampled ones whose prompt and run name none.
    """

    base_precisions = ("bf16", *FORMS)
    adapter: ClassVar[type[Any]]
    block: ClassVar[type[nn.Module]]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.splits_tokens = cls.split_tokens is not DiffusersFamily.split_tokens

    def adapter_class(self) -> type[A]:
        """The class of the run's adapter."""
        return self.adapter

    # --- what a family builds -------------------------------------------------------------------------------------------

    def load_network(
        self, folder: F, *, dtype: torch.dtype, device: torch.device, where: str, name: str = TRANSFORMER
    ) -> nn.Module:
        """One of `folder.networks` with its weights, in eval mode, a module of its own at every call."""
        network: nn.Module = loading.load_model(
            self.transformer, folder.path, name, dtype=dtype, device=device, where=where
        )
        return network

    def meta_network(self, folder: F, *, dtype: torch.dtype, where: str, name: str = TRANSFORMER) -> nn.Module:
        """One of `folder.networks` with its parameters on meta."""
        network: nn.Module = loading.meta_model(self.transformer, folder.path, name, dtype=dtype, where=where)
        return network

    def network_weights(self, folder: F, *, where: str) -> WeightSource:
        """Where a role's weights are read from, by the names of its modules."""
        return loading.stored_weights(folder.path, *folder.networks, where=where)

    def block_classes(self, folder: F) -> tuple[type[nn.Module], ...]:
        """The classes that are the unit of sharding, activation checkpointing and compiling."""
        return (self.block,)

    def split_tokens(self, network: nn.Module, group: Group) -> None:
        """See RoleHandle: who defines it offers sequence parallelism. `sequence_parallel` has what it is made of."""
        raise NotImplementedError

    def frozen(self, cfg: RunConfig) -> Callable[[str], bool] | None:
        """Which parameters of a trained role stay as they are; see RoleHandle."""
        return None

    def lora_formats(self, folder: F) -> Mapping[str, LoraFormat]:
        """Other programs' LoRA formats for its networks by name; none by default."""
        return {}

    def call(
        self, cfg: RunConfig, folder: F, network: nn.Module, latents_source: LatentsSource | None
    ) -> Callable[[int], Tensor] | None:
        """One call of a role's network, from which `check` estimates activations; see `RoleOutline.evaluate`.

        What it gives is called with a number of samples, while nothing is computed and shapes alone count. It makes the network's
        arguments of `torch.empty` (latents of `largest_latents`, the largest that the run can meet; levels [samples]; text
        [samples, folder.text_length, folder.text_dim]) and calls the network as the adapter does, under autocast where
        `halved(cfg)`. By default None: the family does not say how, and the estimate is "without activations".

        Args:
            folder: the role's pipeline.
            network: its transformer, with parameters on meta.

        Raises:
            UserError: the run says no size, or the data's latents do not fit.
        """
        return None

    @abstractmethod
    def caption_encoder(self, folder: F, *, device: torch.device, dtype: torch.dtype, where: str) -> CaptionEncoder:
        """What makes the text embeddings of captions."""

    def negative_prompt(self, cfg: RunConfig, own: str | None = None) -> str:
        """The negative prompt in full, of the run or of one prompt; the empty text where the family has none."""
        return ""

    def settings(self, cfg: RunConfig, prompts: PromptEmbeddings) -> dict[str, Any]:
        """What a `PipelineAdapter` is told of the run besides folder and shift."""
        return {
            "device": context.device(),
            "training": cfg.training,
            "autocast": halved(cfg),
            "prompts": prompts,
            "negative_prompt": self.negative_prompt(cfg),
        }

    def sampling(self, cfg: RunConfig, prompts: PromptEmbeddings) -> dict[str, Any]:
        """What a `PipelineSampler` is told of the run besides folder and configuration; videos are of the run's size."""
        return {
            "device": context.device(),
            "prompts": prompts,
            "size": self.video_size(cfg).of_run(cfg.training),
            "autocast": halved(cfg),
        }

    @abstractmethod
    def run_adapter(self, cfg: RunConfig, prompts: PromptEmbeddings) -> A:
        """The run's adapter."""

    @abstractmethod
    def run_sampler(self, cfg: RunConfig, adapter: A, prompts: PromptEmbeddings) -> FamilySampler:
        """The sampler of the run's validation."""

    # --- what it has of it ----------------------------------------------------------------------------------------------

    def build(self, cfg: RunConfig) -> ModelComponents:
        """The run's roles of this family, the adapter, the validator when asked for, and the data; see `ModelFamily.build`."""
        roles = self.roles(cfg)
        trains = self._trains(cfg)
        validation = prompts_of_run(cfg.training) if trains else ()
        captions = [self.negative_prompt(cfg), "", *(prompt.caption for prompt in validation)]
        captions += [self.negative_prompt(cfg, prompt.negative_prompt) for prompt in validation]
        encoder = self.caption_encoder(
            roles.base,
            device=context.device(),
            dtype=torch.bfloat16 if halved(cfg) else torch.float32,
            where=f"roles.{roles.base_role}.path",
        )
        prompts = PromptEmbeddings(encoder, captions, keep_encoder=False)
        adapter = self.run_adapter(cfg, prompts)
        validator = None
        if cfg.training.log_validation and trains:
            sampler = self.run_sampler(cfg, adapter, prompts)
            validator = SamplingValidator(sampler, validation, seed=cfg.training.seed)
        on_meta = context.world_size() > 1 or cfg.training.frozen_cpu_offload or cfg.training.offload_blocks > 0
        handles = {name: self._role(cfg, name, on_meta=on_meta) for name in roles.folders}
        data = self.loader(cfg) if trains and cfg.training.data_path is not None else None
        return ModelComponents(RoleManager(handles), adapter, validator, data)

    def outline(self, cfg: RunConfig, role: str, *, latents_source: LatentsSource | None) -> RoleOutline:
        """The role's networks on meta and one call of one; see `ModelFamily.outline`."""
        handle = self._role(cfg, role, on_meta=True)
        folder = self.roles(cfg).folders[role]
        called = (cfg.roles[role].train_modules or folder.networks)[0]
        network = handle.modules.get(called, handle.modules[TRANSFORMER])  # a wrong name is told by who applies it
        evaluates = called if len(folder.networks) > 1 else None
        return RoleOutline(handle, self.call(cfg, folder, network, latents_source), evaluates)

    def merge_lora(
        self, base_path: str, weights: WeightSource, file: MergedLora, *, where: str
    ) -> tuple[WeightSource, MergedLora]:
        """A LoRA file in any format that the pipeline's own class reads; see `ModelFamily.merge_lora`."""
        folder = self.open_folder(base_path, where=where)
        module = folder.networks[0] if file.module is None else file.module
        if module not in folder.networks:
            raise ConfigError(Problem(f"the pipeline has no network {module!r}", where, ", ".join(folder.networks)))
        merged = LoraWeights(
            weights, self._read_lora(folder, module, file.path, where), file, module=module, where=where
        )
        if file.fingerprint not in (None, merged.fingerprint):
            found = f"{file.path} is not the LoRA that the run began with: its fingerprint is {merged.fingerprint}"
            raise ConfigError(Problem(found, where, str(file.fingerprint), "put that one back"))
        path = os.path.realpath(file.path) if Path(file.path).exists() else file.path
        return merged, file.model_copy(update={"path": path, "fingerprint": merged.fingerprint})

    def initial_lora(
        self, base_path: str, lora: LoraConfig, names: Collection[str], *, where: str
    ) -> dict[str, Tensor]:
        """Adapters out of files in any format that the pipeline's own class reads; see `ModelFamily.initial_lora`."""
        folder = self.open_folder(base_path, where=where)
        files = {folder.networks[0]: lora.init} if isinstance(lora.init, str) else lora.init or {}
        if unknown := [module for module in files if module not in folder.networks]:
            raise ConfigError(Problem(f"the pipeline has no network {unknown[0]!r}", where, ", ".join(folder.networks)))
        read = {module: self._read_lora(folder, module, file, where, as_trained=True) for module, file in files.items()}
        return initial_adapters(read, lora, names, where=where)

    def _read_lora(self, folder: F, module: str, file: str, where: str, *, as_trained: bool = False) -> LoraFile:
        network = self.meta_network(folder, dtype=torch.float32, where=where, name=module)
        network = self.adaptable(network) if as_trained else network
        formats = self.lora_formats(folder)
        return read_lora_file(file, folder.path, network=network, formats=formats, where=where, as_trained=as_trained)

    def _role(self, cfg: RunConfig, name: str, *, on_meta: bool) -> RoleHandle:
        role, folder, place = cfg.roles[name], self.roles(cfg).folders[name], f"roles.{name}.path"
        form, frozen = FORMS.get(role.base_precision or ""), role.lora is not None or not role.trainable
        halves = role.base_precision == "bf16" or (halved(cfg) and frozen)
        # LoRA files and adapters are added to stored weights before these are cast; shared networks are another role's
        on_meta = on_meta or halves or form is not None or bool(role.merge_lora) or role.share is not None
        dtype = torch.bfloat16 if halves else torch.float32
        weights = None
        networks: dict[str, nn.Module] = {}
        for key in folder.networks:
            if on_meta:
                network = self.meta_network(folder, name=key, dtype=dtype, where=place)
            else:
                network = self.load_network(folder, name=key, dtype=dtype, device=context.device(), where=place)
            networks[key] = self.grown(cfg, name, network).requires_grad_(role.trainable).train(role.trainable)
        if on_meta:
            weights = self.network_weights(folder, where=place)
        return RoleHandle(
            name=name,
            modules=networks,
            family=cfg.role_family(name),
            trainable=role.trainable,
            block_classes=self.block_classes(folder),
            weights=weights,
            bfloat16_classes=(nn.Linear,) if halved(cfg) and not frozen else (),
            frozen=self.frozen(cfg),
            split_tokens=self.split_tokens if self.splits_tokens else None,
            quantise=None if form is None else quantise(networks, self.block_classes(folder), form),
        )

    def adaptable(self, network: nn.Module) -> nn.Module:
        """A network with every layer that some run's adapters may be on."""
        return network

    def grown(self, cfg: RunConfig, name: str, network: nn.Module) -> nn.Module:
        """A role's network with what its pipeline lacks, before it is decided how weights are held."""
        return network

    # --- commands -------------------------------------------------------------------------------------------------------

    def encoder(self, model_path: str, *, device: torch.device) -> LatentEncoder:
        """The autoencoder and the text encoder of a pipeline, each loaded at its first use; see `ModelFamily.encoder`."""
        where = "model path"
        folder = self.open_folder(model_path, where=where)
        return PipelineEncoder(
            model_path,
            family=self.family,
            geometry=self.geometry,
            encoders=(VAE, TEXT_ENCODER),
            text=self.caption_encoder(folder, device=device, dtype=torch.float32, where=where),
            settings={},
            load_vae=lambda: loading.load_frozen(self.vae, model_path, "vae", device=device, where=where),
            device=device,
        )

    def export(
        self,
        base: str,
        out: Path,
        modules: Mapping[str, Mapping[str, Tensor]],
        *,
        pipeline_config: Any,
        student_schedule: WarpedSchedule | None,
    ) -> list[str]:
        """The base pipeline with the trained network and a scheduler that stays as it is; see `ModelFamily.export`."""
        folder = self.open_folder(base, where="base path")
        networks = {name: loading.outline_model(self.transformer, folder.path, name) for name in folder.networks}
        export_pipeline(base, out, modules, networks=networks)
        if student_schedule is None or student_schedule(lambda t: t) is None:
            return []
        return ["the pipeline's own scheduler knows no student's schedule; `fastvideo-distill sample` follows it"]


def halved(cfg: RunConfig) -> bool:
    """Whether the run computes in bfloat16."""
    return cfg.training.mixed_precision == "bf16"
