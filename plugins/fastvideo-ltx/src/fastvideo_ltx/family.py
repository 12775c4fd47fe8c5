"""The model family `ltx`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.captions import CaptionEncoder, PromptEmbeddings
from fastvideo_data.encoder import EncoderIdentity, LatentEncoder
from fastvideo_data.model_sampler import PathSampler
from fastvideo_data.prompt_fit import video_size
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.family import DiffusersFamily, halved
from fastvideo_diffusers.family_roles import FamilyRoles
from fastvideo_diffusers.first_frames import check_first_frames
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.identity import encoder_identity
from fastvideo_diffusers.lora_formats import LoraFormat
from fastvideo_diffusers.sampler import path_sampler
from fastvideo_diffusers.schedule_fit import timestep_shift
from fastvideo_diffusers.sequence_parallel import Group
from fastvideo_diffusers.stored_tensors import stored_loss_mask, stored_text
from fastvideo_ltx.adapter import LtxAdapter
from fastvideo_ltx.batches import (
    data_free_video,
    frame_rates,
    layout_of_video,
    stored_video,
)
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.encoder import build_encoder
from fastvideo_ltx.export import export_pipeline
from fastvideo_ltx.export_lora import export_lora
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.generation import Generation, generation_of
from fastvideo_ltx.generations import GENERATIONS, open_folder
from fastvideo_ltx.sampler import LtxSampler, half
from fastvideo_ltx.schedule import is_dynamic, many_step_config, resolve_flow_shift
from fastvideo_ltx.tiny import write_tiny_pipeline
from fastvideo_ltx.upsampler import check_upsampler


class LtxFamily(DiffusersFamily[LtxFolder, LtxAdapter]):
    """LTX-Video and LTX-2; all roles of a run are of one generation."""

    family = "ltx"

    adapter = LtxAdapter

    def resolve(self, cfg: RunConfig, *, latents_source: LatentsSource | None) -> LtxConfig:
        """With the negative prompt in full, and with shift_tokens where the shift of the run depends on them."""
        update = {"negative_prompt": self.negative_prompt(cfg), "shift_tokens": self._shift_tokens(cfg, latents_source)}
        return section(cfg).model_copy(update=update)

    def roles(self, cfg: RunConfig) -> FamilyRoles[LtxFolder]:
        """As DiffusersFamily's; the base has the streams that the run asks for, and fits its upsampler."""
        found = super().roles(cfg)
        check_sampling(section(cfg), found.base)
        return found

    def _base(self, cfg: RunConfig) -> LtxFolder:
        return self.roles(cfg).base

    def _generation(self, cfg: RunConfig) -> Generation:
        return generation_of(self._base(cfg))

    def _shift_tokens(self, cfg: RunConfig, latents_source: LatentsSource | None) -> int | None:
        """The number of video tokens that the run's shift is taken at: those of the videos that it trains on.

        Data with several latent shapes counts with its longest. None where the shift does not depend on it.

        Raises:
            UserError: neither run nor data name a size.
        """
        config, base, training = section(cfg), self._base(cfg), cfg.training
        if config.flow_shift is not None or config.shift_tokens is not None:
            return config.shift_tokens
        if not is_dynamic(base):
            return None
        sizes = (training.num_height, training.num_width, training.num_frames, training.num_latent_t)
        if latents_source == "zeros" and sizes[:2] != (None, None):
            return data_free_video({}, base, training).video
        rows = self.rows(cfg)
        if rows and all("vae_latent" in row for row in rows):
            shapes = [stored_video(row, base, training).shape[2:] for row in rows]
            return int(max(frames * height * width for frames, height, width in shapes))
        return data_free_video({}, base, training).video

    def _flow_shift(self, cfg: RunConfig, latents_source: LatentsSource | None = "data") -> float:
        tokens = self._shift_tokens(cfg, latents_source)
        return resolve_flow_shift(self._base(cfg), section(cfg), tokens=0 if tokens is None else tokens)

    # --- its pipelines, prompts and data --------------------------------------------------------------------------------

    def open_folder(self, path: str, *, where: str) -> LtxFolder:
        return open_folder(path, where=where)

    def components(self, folder: LtxFolder) -> Sequence[str]:
        return folder.traits.components

    def check_weights(self, folder: LtxFolder, *, where: str, encodes: bool, decodes: bool) -> None:
        generation_of(folder).check_weights(folder, where=where, encodes=encodes, decodes=decodes)

    def video_geometry(self, cfg: RunConfig) -> VideoGeometry:
        return self._generation(cfg).geometry

    def check_schedule(
        self,
        cfg: RunConfig,
        rows: Sequence[Mapping[str, Any]],
        *,
        latents_source: LatentsSource | None,
        many_steps: bool,
    ) -> None:
        if not rows:
            return
        self._flow_shift(cfg, latents_source)
        if cfg.training.log_validation and many_steps:
            many_step_config(self._base(cfg), section(cfg))

    def timestep_shift(self, cfg: RunConfig) -> Callable[[Tensor], Tensor]:
        return timestep_shift(self._flow_shift(cfg), self._base(cfg).num_train_timesteps)

    def optional_tensors(self, cfg: RunConfig) -> Sequence[str]:
        """The sound too, but in a run on video alone."""
        streams = section(cfg).streams
        sound = ("audio_latent",) if streams is None or "audio" in streams else ()
        return ("vae_latent", *sound, "loss_mask")

    def check_row(self, cfg: RunConfig, row: Mapping[str, Any], latents_source: LatentsSource | None) -> None:
        config, base, generation = section(cfg), self._base(cfg), self._generation(cfg)
        stored_text(row, width=base.text_dim, path=base.path)
        frame_rates(row, generation.frame_rate(config), 1)
        if latents_source in ("data", "trajectory") or config.first_frame_probability > 0:
            generation.check_latents(row, base, config, cfg.training)
            stored_loss_mask(row, *stored_video(row, base, cfg.training).shape[2:])
        match latents_source:
            case "trajectory":
                config.check_no_first_frames()
            case "zeros":
                layout = data_free_video(row, base, cfg.training)
                if config.first_frame_probability > 0:
                    check_first_frames(stored_video(row, base, cfg.training).shape[3:], (layout.height, layout.width))

    def stored_latents(self, cfg: RunConfig, row: Mapping[str, Any]) -> Tensor:
        return stored_video(row, self._base(cfg), cfg.training)

    def encoder_identity(
        self, cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool
    ) -> EncoderIdentity | None:
        """Text encoder, and VAEs where the data's latents are trained on, of the first trained role's pipeline."""
        roles, config, generation = self.roles(cfg), section(cfg), self._generation(cfg)
        unused = set()
        if latents_source != "data" and config.first_frame_probability == 0:
            unused.add("vae")
        if latents_source != "data" or "audio" not in generation.chosen_streams(config):
            unused.add("audio_vae")
        wanted = [encoder for encoder in generation.encoders if encoder.name not in unused]
        where = f"roles.{roles.base_role}.path"
        identity = encoder_identity(roles.base.path, wanted, where=where, download=download)
        if identity is None:
            return None
        values = {**identity, **generation.text_settings(roles.base)}
        return EncoderIdentity(roles.base_role, roles.base.path, values)

    def prompt_token_counts(self, cfg: RunConfig, prompt: ValidationPrompt) -> Mapping[str, int]:
        """Of both stages where there are two. For each image at another frame than the first a pipeline adds a frame's tokens."""
        counts: dict[str, int] = {}
        sizes = {"": video_size(prompt)}
        if section(cfg).upsampler is not None:
            sizes[" of the first stage"] = half(sizes[""])
        for stage, size in sizes.items():
            frames, height, width = self._base(cfg).latent_size(size)
            counts[f"tokens{stage}"] = frames * height * width
            if prompt.last_image_path is not None or prompt.conditions:
                counts[f"tokens of an image{stage}"] = height * width
        return counts

    # --- its networks ---------------------------------------------------------------------------------------------------

    def load_network(
        self, folder: LtxFolder, *, dtype: torch.dtype, device: torch.device, where: str, name: str = TRANSFORMER
    ) -> nn.Module:
        return generation_of(folder).load_transformer(folder.path, dtype=dtype, device=device, where=where)

    def meta_network(self, folder: LtxFolder, *, dtype: torch.dtype, where: str, name: str = TRANSFORMER) -> nn.Module:
        return generation_of(folder).meta_transformer(folder.path, dtype=dtype, where=where)

    def block_classes(self, folder: LtxFolder) -> tuple[type[nn.Module], ...]:
        return (generation_of(folder).block,)

    def frozen(self, cfg: RunConfig) -> Callable[[str], bool] | None:
        return self._generation(cfg).frozen(section(cfg))

    def split_tokens(self, network: nn.Module, group: Group) -> None:
        one = next(one for one in GENERATIONS.values() if isinstance(network, one.transformer))
        one.split_tokens(network, group)

    def head_counts(self, folder: LtxFolder, *, where: str) -> Mapping[str, int]:
        config: Any = generation_of(folder).outline(folder.path).config
        counts = {"heads of transformer": config.num_attention_heads}
        sound = {"heads of its sound": config.audio_num_attention_heads} if "audio" in folder.traits.streams else {}
        return counts | sound

    def lora_formats(self, folder: LtxFolder) -> Mapping[str, LoraFormat]:
        return generation_of(folder).lora_formats

    def call(
        self, cfg: RunConfig, folder: LtxFolder, network: nn.Module, latents_source: LatentsSource | None
    ) -> Callable[[int], Tensor]:
        """On the most tokens that the run can meet."""
        rows, generation, config = self.rows(cfg), generation_of(folder), section(cfg)
        stored = latents_source != "zeros" and bool(rows)
        layouts = [generation.layout(row, folder, config, cfg.training, stored=stored) for row in rows or ({},)]
        layout = max(layouts, key=lambda one: one.total)

        def evaluate(samples: int) -> Tensor:
            noisy = torch.empty(samples, layout.total, folder.channels)
            # A given first frame has a timestep of its own, so that every token has one.
            t = torch.empty(noisy.shape[:2] if config.first_frame_probability > 0 else samples)
            return generation.evaluate(network, noisy, t, folder, layout, autocast=halved(cfg))

        return evaluate

    # --- a run ----------------------------------------------------------------------------------------------------------

    def caption_encoder(
        self, folder: LtxFolder, *, device: torch.device, dtype: torch.dtype, where: str
    ) -> CaptionEncoder:
        return generation_of(folder).caption_encoder(folder, device=device, dtype=dtype, where=where)

    def negative_prompt(self, cfg: RunConfig, own: str | None = None) -> str:
        return section(cfg).negative_text(self._generation(cfg).negative_prompt, own)

    def run_adapter(self, cfg: RunConfig, prompts: PromptEmbeddings) -> LtxAdapter:
        config, shift = section(cfg), self._flow_shift(cfg)
        made = self._generation(cfg).adapter
        return made(self._base(cfg), config=config, flow_shift=shift, **self.settings(cfg, prompts))

    def run_sampler(self, cfg: RunConfig, adapter: LtxAdapter, prompts: PromptEmbeddings) -> LtxSampler:
        made = self._generation(cfg).sampler
        return made(self._base(cfg), adapter=adapter, config=section(cfg), **self.sampling(cfg, prompts))

    def video_size(self, cfg: RunConfig) -> VideoSize:
        return self._generation(cfg).size

    # --- commands -------------------------------------------------------------------------------------------------------

    def encoder(self, model_path: str, *, device: torch.device) -> LatentEncoder:
        return build_encoder(model_path, device=device)

    def sampler(self, model_path: str, pipeline_config: LtxConfig, *, device: torch.device) -> PathSampler:
        return build_sampler(model_path, pipeline_config, device=device)

    export = staticmethod(export_pipeline)
    export_lora = staticmethod(export_lora)
    tiny = staticmethod(write_tiny_pipeline)


def section(cfg: RunConfig) -> LtxConfig:
    """The run's pipeline_config; the defaults where another family's is in its place."""
    return cfg.pipeline_config if isinstance(cfg.pipeline_config, LtxConfig) else LtxConfig()


def check_streams(config: LtxConfig, folder: LtxFolder) -> None:
    """The pipeline makes what is asked for.

    Raises:
        ConfigError: it does not.
    """
    generation = folder.traits
    problems = []
    if lacking := [stream for stream in generation.chosen_streams(config) if stream not in generation.streams]:
        problems.append(
            Problem(
                f"{', '.join(lacking)} is asked for, but {folder.path} is {generation.name}",
                where="pipeline_config.streams",
                allowed=", ".join(generation.streams),
                fix="remove streams",
            )
        )
    elif config.audio_loss_weight != 1 and "audio" not in generation.chosen_streams(config):
        found = f"found {config.audio_loss_weight:g}, but no audio is trained"
        problems.append(Problem(found, where="pipeline_config.audio_loss_weight", fix="remove it"))
    if problems:
        raise ConfigError(problems)


def check_sampling(config: LtxConfig, folder: LtxFolder) -> None:
    """As `check_streams`, and it can be sampled in two stages where there is an upsampler."""
    check_streams(config, folder)
    if config.upsampler is not None:
        check_upsampler(generation_of(folder).sampler.upsampler_class, config.upsampler, folder)


def build_sampler(
    model_path: str, pipeline_config: LtxConfig, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> PathSampler:
    """A sampler for the pipeline at `model_path`; videos have the generation's own size unless a prompt says otherwise.

    Args:
        model_path: folder or hub id.
        pipeline_config: shift, sampler kind, negative prompt; of a run it names the tokens that its shift was taken at,
            without them it is that of the generation's own size.
        device: where everything runs.
        dtype: of transformer and text encoder; the VAE is float32.

    Raises:
        ConfigError: the path holds no LTX pipeline, or not the streams that are asked for.
    """
    folder = open_folder(model_path, where="model path")
    check_sampling(pipeline_config, folder)
    generation = generation_of(folder)
    transformer = generation.load_transformer(model_path, dtype=dtype, device=device, where="model path")
    encoder = generation.caption_encoder(folder, device=device, dtype=dtype, where="model path")
    prompts = PromptEmbeddings(encoder, keep_encoder=True)
    size = generation.size
    layout = layout_of_video(folder, size)
    adapter = generation.adapter(
        folder,
        config=pipeline_config,
        flow_shift=resolve_flow_shift(folder, pipeline_config, tokens=layout.video),
        device=device,
        training=None,
        autocast=False,
        prompts=prompts,
        negative_prompt=pipeline_config.negative_text(generation.negative_prompt),
    )
    sampler = generation.sampler(
        folder, adapter=adapter, config=pipeline_config, device=device, prompts=prompts, size=size, autocast=False
    )
    return path_sampler(folder, {TRANSFORMER: transformer}, sampler, family="ltx")
