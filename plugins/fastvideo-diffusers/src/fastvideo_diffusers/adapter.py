"""How training methods talk to the network of a diffusers pipeline: what every such family's adapter does the same way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.adapter import AttentionKind, LatentsSource
from fastvideo_core.contracts.batch import TrainingBatch, Trajectory
from fastvideo_core.contracts.flow_adapter import FlowMatchingAdapter
from fastvideo_core.contracts.hidden_states import features_of
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ConfigError, ContractError, Problem
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.trajectories import all_states, clean_ends, trajectory_timesteps
from fastvideo_diffusers.folder import TRANSFORMER, PipelineFolder
from fastvideo_diffusers.latents import data_free_latents, normalise, stored_video
from fastvideo_diffusers.sequence_parallel import whole_tokens
from fastvideo_diffusers.stored_tensors import stored_loss_mask, stored_text

F = TypeVar("F", bound=PipelineFolder)

SPARSITY = "vsa_sparsity"
"""A batch's extra: the fraction of tiles that sparse attention leaves out."""


@dataclass(frozen=True)
class PreparedLatents:
    """The half of a batch that is no text.

    Args:
        latents: [B, ...] float32, normalised, on the device.
        context, loss_weight, extras: of the `TrainingBatch`.
    """

    latents: Tensor
    context: dict[str, Tensor] = field(default_factory=dict)
    loss_weight: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)


class PipelineAdapter(FlowMatchingAdapter, Generic[F]):
    """Every primitive for a transformer; a family adds its text, its latents and the call itself.

    Args:
        folder: the base pipeline's facts.
        flow_shift: the run's one timestep shift.
        device: where batches go.
        training: its sizes crop the latents of the data, and shape those of data-free training; where it names none, the
            data's latents do. None for an adapter that only samples.
        autocast: compute in bfloat16 where a network's weights are float32.
        prompts: embeddings of captions; asked on_train_start.
        negative_prompt: in full.

    Attributes:
        family: as run.yaml names it.
        name: as messages name its models.
        size_multiple: pixels that height and width are multiples of.
        levels_taken: what t may be, for messages.
    """

    family: ClassVar[str]
    name: ClassVar[str]
    size_multiple: int
    levels_taken: str = "one noise level per sample, [B]"
    supports_tangent = True
    supported_attention: tuple[AttentionKind, ...] = ("dense",)
    """The values of `attn_kind` that this family can do."""

    def __init__(
        self,
        folder: F,
        *,
        flow_shift: float,
        device: torch.device,
        training: TrainingArgs | None,
        autocast: bool,
        prompts: PromptEmbeddings,
        negative_prompt: str,
    ) -> None:
        super().__init__(flow_shift, folder.num_train_timesteps)
        self.folder = folder
        self.device = device
        self.autocast = autocast
        self._training = training
        self._prompts = prompts
        self._negative_prompt = negative_prompt
        self._negative_text: dict[str, Tensor] | None = None
        self._empty_text: dict[str, Tensor] | None = None

    # --- what a family fills in -------------------------------------------------------------------------------------

    @abstractmethod
    def text_conditioning(self, embeddings: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """What the network takes of stored text [B, L, D], on its device; every value [B, ...].

        Args:
            lengths: tokens of each sample [B]; None is L for all.
        """

    def prepare_latents(
        self,
        raw_batch: Mapping[str, Any],
        source: LatentsSource,
        batch_size: int,
        training: TrainingArgs,
        generator: torch.Generator | None,
    ) -> PreparedLatents:
        """The batch's latents, from the data (with its `loss_mask`) or zeros, as `prepare_batch` promises them; its errors too.

        Here [B, C, T, H, W], as the autoencoder gives them.
        """

        def stored() -> Tensor:
            return self.stored_video(raw_batch, training)

        if source == "zeros":
            multiple = self.size_multiple
            size = data_free_latents(raw_batch, self.folder, training, size_multiple=multiple, stored=stored)
            return PreparedLatents(torch.zeros(batch_size, self.folder.channels, *size, device=self.device))
        latents = stored().to(self.device, torch.float32, non_blocking=True)
        normalised = raw_batch.get("vae_latent_normalised", False)
        mask = stored_loss_mask(raw_batch, *latents.shape[2:])
        weight = None if mask is None else mask.to(self.device, torch.float32, non_blocking=True)
        return PreparedLatents(latents if normalised else normalise(latents, self.folder), loss_weight=weight)

    def given(self, raw_batch: Mapping[str, Any], latents: Tensor) -> dict[str, Tensor]:
        """More of the batch's context: what the network is told of these latents besides the text, as the data has it.

        Raises:
            DataError: the data lacks it, or it does not fit.
        """
        return {}

    def stored_video(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> Tensor:
        """`vae_latent` [B, C, T, H, W] as it is stored, at most `num_latent_t` frames of it, once it fits the pipeline.

        Raises:
            DataError: it does not.
        """
        return stored_video(raw_batch, self.folder, training, size_multiple=self.size_multiple)

    @abstractmethod
    def velocity(
        self,
        handle: RoleHandle,
        noisy: Tensor,
        levels: Tensor,
        conditioning: Mapping[str, Tensor],
        batch: TrainingBatch,
    ) -> Tensor:
        """The network's velocity [B, ...] at x_t: the pipeline's own call, in the dtype that it computes in.

        Args:
            levels: as `levels` gives them.
            conditioning: the text's, of the half that is asked for.
            batch: for its context and extras.
        """

    def blocks(self, handle: RoleHandle) -> list[nn.Module]:
        """The transformer's blocks, shallow to deep; the first output of each is [B, tokens, channels]."""
        transformer: Any = handle.modules[TRANSFORMER]
        return list(transformer.transformer_blocks)

    def width(self, handle: RoleHandle) -> int:
        """The channels of those outputs."""
        config: Any = handle.modules[TRANSFORMER].config
        return int(config.num_attention_heads * config.attention_head_dim)

    # --- batches ----------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Encodes the negative prompt and the empty text, once."""
        if self._negative_text is None:
            self._negative_text, self._empty_text = self._encoded(self._negative_prompt), self._encoded("")

    def _encoded(self, caption: str) -> dict[str, Tensor]:
        embedding = self._prompts.get(caption).to(self.device, torch.float32)
        return self.text_conditioning(embedding[None], None)

    def prepare_batch(
        self,
        raw_batch: Mapping[str, Any],
        *,
        current_vsa_sparsity: float = 0.0,
        latents_source: LatentsSource = "data",
        generator: torch.Generator | None = None,
    ) -> TrainingBatch:
        """Normalised float32 latents and float32 text, padded as at inference.

        Args:
            raw_batch: `text_embedding` [B, L, D] with `text_embedding_length` [B], and for "data" `vae_latent`
                [B, C, T, H, W] with `vae_latent_normalised`; for "trajectory" what `stored_trajectory` takes.

        Raises:
            DataError: something is missing from the data or has a shape that the pipeline cannot take.
            ConfigError: sparse attention is asked for, or the sizes that "zeros" needs are missing or contradict.
        """
        training = self._of_run()
        if current_vsa_sparsity > 0 and "vsa" not in self.supported_attention:
            raise self._dense_only(f"a VSA sparsity of {current_vsa_sparsity}")
        stored = stored_text(raw_batch, width=self.folder.text_dim, path=self.folder.path)
        text = stored.to(self.device, torch.float32, non_blocking=True)
        conditioning = self.text_conditioning(text, raw_batch.get("text_embedding_length"))
        trajectory = None
        if latents_source == "trajectory":
            trajectory = self.stored_trajectory(raw_batch)
            raw_batch, latents_source = clean_ends(raw_batch), "data"
        prepared = self.prepare_latents(raw_batch, latents_source, len(text), training, generator)
        return TrainingBatch(
            latents=prepared.latents,
            conditioning=conditioning,
            negative_conditioning=_for_batch(self._negative_text, len(text)),
            dropped_conditioning=_for_batch(self._empty_text, len(text)),
            context=prepared.context | self.given(raw_batch, prepared.latents),
            loss_weight=prepared.loss_weight,
            trajectory=trajectory,
            extras={**prepared.extras, "info": raw_batch.get("info", []), SPARSITY: current_vsa_sparsity},
        )

    def stored_trajectory(self, raw_batch: Mapping[str, Any]) -> Trajectory:
        """Every state as `prepare_latents` gives a clip's latents: `trajectory_latents` [B, S, C, T, H, W], normalised unless
        the data says otherwise, with `trajectory_timesteps` [B, S].

        Raises:
            DataError: there are none, or they do not fit the pipeline.
        """
        times, states = trajectory_timesteps(raw_batch), all_states(raw_batch)
        prepared = self.prepare_latents(states, "data", times.numel(), self._of_run(), None)
        return Trajectory(prepared.latents.reshape(*times.shape, *prepared.latents.shape[1:]), times)

    def unpack_latents(self, latents: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        """Normalised latents as `preprocess` would store those of clips, by name: `vae_latent` [B, C, T, H, W]."""
        return {"vae_latent": latents}

    def _of_run(self) -> TrainingArgs:
        if self._training is None:
            found = "an adapter that was made without `training`, as samplers make it, prepares no batches"
            raise ContractError(Problem(found, type(self).__name__, fix="the family gives it cfg.training in a run"))
        return self._training

    def prompt_batch(self, latents: Tensor, text: Tensor, negative: Tensor | None, **more: Any) -> TrainingBatch:
        """What sampling of one video conditions on.

        Args:
            latents: [1, ...], of the video's shape.
            text: the prompt's embedding [L, D].
            negative: that of the negative prompt; None without guidance.
            more: `context` and `extras` of the batch.
        """
        embeddings = [text] if negative is None else [text, negative]
        texts = [self.text_conditioning(one[None].to(self.device, torch.float32), None) for one in embeddings]
        return TrainingBatch(latents, texts[0], texts[1] if len(texts) > 1 else None, **more)

    # --- the network ------------------------------------------------------------------------------------------------

    def predict_noise(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: AttentionKind = "dense",
    ) -> Tensor:
        """The velocity that the role's network predicts, in the dtype that it computes in.

        Args:
            t: [B], or one value for all, or what else `levels_taken` names.

        Raises:
            ConfigError: the family cannot do `attn_kind`.
            ValueError: `conditional=False` before the negative prompt was encoded, or t is of another shape.
        """
        if attn_kind not in self.supported_attention:
            raise self._dense_only(f"attn_kind '{attn_kind}'")
        conditioning = batch.conditioning if conditional else batch.negative_conditioning
        if conditioning is None:
            raise ValueError(
                "the batch has no negative conditioning: the negative prompt is encoded by on_train_start(), which "
                "must run before prepare_batch()"
            )
        levels = self.sample_timesteps(t, noisy_latents)
        with self.attention(handle, noisy_latents, levels, attn_kind, batch):
            return self.velocity(handle, noisy_latents, levels, conditioning, batch)

    def attention(
        self, handle: RoleHandle, noisy: Tensor, levels: Tensor, kind: AttentionKind, batch: TrainingBatch
    ) -> AbstractContextManager[None]:
        """Inside, the role's network is called with attention of this kind, one of `supported_attention`."""
        return nullcontext()

    def sample_timesteps(self, t: Tensor, latents: Tensor) -> Tensor:
        """t as the network takes it: one per sample, [B].

        Raises:
            ValueError: it differs inside a sample.
        """
        timesteps = t.to(latents.device)
        if timesteps.numel() == 1:
            return timesteps.reshape(1).expand(len(latents))
        if timesteps.numel() == timesteps.shape[0] == len(latents):
            return timesteps.reshape(-1)
        raise ValueError(
            f"t has shape {list(t.shape)} for latents {list(latents.shape)}: {self.name} takes {self.levels_taken}"
        )

    def extract_features(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, conditional: bool
    ) -> list[Tensor]:
        """The outputs [B, tokens, channels] of the blocks at a third, two thirds and the end of the transformer."""
        features = features_of(
            self._feature_blocks(handle),
            lambda: self.predict_noise(handle, noisy_latents, t, batch, conditional=conditional),
        )
        return whole_tokens(handle.modules[TRANSFORMER], features)

    def feature_channels(self, handle: RoleHandle) -> tuple[int, ...]:
        """The transformer's width, once per feature map."""
        return (self.width(handle),) * len(self._feature_blocks(handle))

    def _feature_blocks(self, handle: RoleHandle) -> list[nn.Module]:
        blocks = self.blocks(handle)
        return [blocks[i] for i in sorted({len(blocks) // 3, 2 * len(blocks) // 3, len(blocks) - 1})]

    def _dense_only(self, asked: str) -> ConfigError:
        return ConfigError(
            Problem(
                f"{asked} asks for sparse attention",
                where=f"family '{self.family}'",
                allowed="attn_kind: dense with VSA sparsity 0; this family has dense attention only",
            )
        )


def _for_batch(text: Mapping[str, Tensor] | None, batch_size: int) -> dict[str, Tensor] | None:
    if text is None:
        return None
    return {key: value.expand(batch_size, *value.shape[1:]) for key, value in text.items()}
