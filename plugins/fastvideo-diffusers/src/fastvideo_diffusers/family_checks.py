"""What a family of diffusers pipelines says of a run before it is built: its pipelines, and whether data and prompts fit them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import Problem, UserError
from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.family import ParquetFamily
from fastvideo_data.prompt_fit import ImageUse, fit_prompt, video_size
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers import loading
from fastvideo_diffusers.family_roles import FamilyRoles, open_family_roles
from fastvideo_diffusers.folder import PipelineFolder, read_config
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, StoredEncoder, encoder_identity
from fastvideo_diffusers.latents import data_free_latents, stored_video
from fastvideo_diffusers.pipeline_files import check_undamaged
from fastvideo_diffusers.quantised import OF_BITSANDBYTES
from fastvideo_diffusers.sequence_parallel import split_problems
from fastvideo_diffusers.stored_tensors import stored_loss_mask, stored_text

F = TypeVar("F", bound=PipelineFolder)


class CheckedPipelines(ParquetFamily, Generic[F]):
    """The half of `DiffusersFamily` that opens and checks; its attributes are told there."""

    family: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    transformer: ClassVar[Any]
    vae: ClassVar[Any]
    text_model: ClassVar[Any]
    geometry: ClassVar[VideoGeometry]
    size: ClassVar[VideoSize]

    def __init__(self) -> None:
        super().__init__()
        self._roles: FamilyRoles[F] | None = None

    def roles(self, cfg: RunConfig) -> FamilyRoles[F]:
        """The run's roles of this family, their configuration files read once.

        Raises:
            ConfigError: there is no such role, or a path holds no pipeline of the family.
        """
        if self._roles is None:
            self._roles = open_family_roles(cfg, self.family, self.open_folder)
        return self._roles

    def latent_space(self, role: str) -> Mapping[str, object] | None:
        """What the role's pipeline says of its latents and text embeddings."""
        return None if self._roles is None else self._roles.folders[role].latent_space

    @abstractmethod
    def open_folder(self, path: str, *, where: str) -> F:
        """Reads a pipeline's configuration files.

        Args:
            path: folder or hub id.
            where: how errors name the place that gave the path, for example "roles.student.path".

        Raises:
            ConfigError: the path holds no pipeline of the family, or an incomplete one.
        """

    def components(self, folder: F) -> Sequence[str]:
        """The sub-folders of a pipeline."""
        return self.parts

    def check_weights(self, folder: F, *, where: str, encodes: bool, decodes: bool) -> None:
        """The weights are those that the configurations describe, by the headers of their files; the tokenizer can be used.

        Args:
            encodes: whether its text encoder is used.
            decodes: whether its VAE is.

        Raises:
            ConfigError: they are not.
        """
        kinds = {name: self.network_class(folder, name) for name in folder.networks}
        kinds |= {"text_encoder": self.text_model} if encodes else {}
        kinds |= {"vae": self.vae} if decodes else {}
        loading.check_weights(folder.path, kinds, where=where, tokenizer=encodes)

    def network_class(self, folder: F, name: str) -> Any:
        """The diffusers class of one of `folder.networks`."""
        return self.transformer

    def fit_prompt(self, cfg: RunConfig, prompt: ValidationPrompt) -> ValidationPrompt:
        """The prompt with its video's size.

        Raises:
            UserError: the family cannot sample it.
        """
        size = self.video_size(cfg).of_run(cfg.training)
        return fit_prompt(prompt, size, self.video_geometry(cfg), self.image_use)

    def video_size(self, cfg: RunConfig) -> VideoSize:
        """Of sampled videos whose prompt and run name none."""
        return self.size

    def video_geometry(self, cfg: RunConfig) -> VideoGeometry:
        """The videos that the run's pipelines encode."""
        return self.geometry

    @property
    def image_use(self) -> ImageUse | None:
        """What the base pipeline does with images; None where no pipeline could be opened."""
        return None if self._roles is None else self._roles.base.image_use

    def check_schedule(
        self,
        cfg: RunConfig,
        rows: Sequence[Mapping[str, Any]],
        *,
        latents_source: LatentsSource | None,
        many_steps: bool,
    ) -> None:
        """The run has a timestep shift, and validation of a student that is sampled in many steps a scheduler.

        Args:
            rows: raw batches of the data; none where it could not be read, which is told already.

        Raises:
            UserError: it has not.
        """

    def optional_tensors(self, cfg: RunConfig) -> Sequence[str]:
        return (*super().optional_tensors(cfg), "loss_mask")

    def check_row(self, cfg: RunConfig, row: Mapping[str, Any], latents_source: LatentsSource | None) -> None:
        """A raw batch of the data can be trained on.

        Raises:
            UserError: it cannot.
        """
        base = self.roles(cfg).base
        stored_text(row, width=base.text_dim, path=base.path)
        if latents_source in ("data", "trajectory"):
            stored_loss_mask(row, *self.stored_latents(cfg, row).shape[2:])
        elif latents_source == "zeros":
            self.data_free_latents(cfg, row)

    def stored_latents(self, cfg: RunConfig, row: Mapping[str, Any]) -> Tensor:
        """The latents [B, C, T, H, W] of a raw batch.

        Raises:
            DataError: they are missing, or do not fit the base's pipeline.
        """
        multiple = self.video_geometry(cfg).size_multiple
        return stored_video(row, self.roles(cfg).base, cfg.training, size_multiple=multiple)

    def data_free_latents(self, cfg: RunConfig, row: Mapping[str, Any]) -> tuple[int, int, int]:
        """(T, H, W) of latents that are not taken from the data.

        Raises:
            UserError: the run says no size, or the data's latents would give it and do not fit.
        """
        base, multiple = self.roles(cfg).base, self.video_geometry(cfg).size_multiple
        return data_free_latents(
            row, base, cfg.training, size_multiple=multiple, stored=lambda: self.stored_latents(cfg, row)
        )

    def largest_latents(self, cfg: RunConfig, latents_source: LatentsSource | None) -> tuple[int, int, int]:
        """(T, H, W) of the largest latents that the run can meet; errors as `call`."""
        rows = self.rows(cfg)
        shapes: list[tuple[int, int, int]]
        if latents_source == "zeros":
            shapes = [self.data_free_latents(cfg, row) for row in rows or ({},)]
        else:
            stored = [self.stored_latents(cfg, row).shape for row in rows]
            shapes = [(frames, height, width) for _, _, frames, height, width in stored]
            shapes = shapes or [self.data_free_latents(cfg, {})]
        return max(shapes, key=math.prod)

    def head_counts(self, folder: F, *, where: str) -> Mapping[str, int]:
        """How many heads share an attention, of every network that a pipeline has, by what messages call them."""
        kinds = {name: self.network_class(folder, name) for name in folder.networks}
        configs = {
            name: read_config(kind, folder.path, name, supported=f"{self.family} pipelines", where=where)
            for name, kind in kinds.items()
        }
        return {f"heads of {name}": int(config["num_attention_heads"]) for name, config in configs.items()}

    def token_counts(self, folder: F, latents: Sequence[int]) -> Mapping[str, int]:
        """How many tokens latents (T, H, W) are, of each kind that there is, by what messages call them."""
        return {"tokens": math.prod(latents)}

    def prompt_token_counts(self, cfg: RunConfig, prompt: ValidationPrompt) -> Mapping[str, int]:
        """`token_counts` of what the network is called with to sample a fitted prompt."""
        base = self.roles(cfg).base
        return self.token_counts(base, base.latent_size(video_size(prompt)))

    def _split_problems(
        self,
        cfg: RunConfig,
        prompts: Sequence[ValidationPrompt],
        rows: Sequence[Mapping[str, Any]],
        latents_source: LatentsSource | None,
    ) -> Iterator[Problem]:
        """Tokens of the run's videos that its processes cannot share."""
        size, base = cfg.training.sequence_parallel, self.roles(cfg).base
        if latents_source is not None:
            of_zeros = latents_source == "zeros"
            shapes = [
                self.data_free_latents(cfg, row) if of_zeros else self.stored_latents(cfg, row).shape[2:]
                for row in rows
            ]
            for shape in dict.fromkeys(map(tuple, shapes)):
                yield from split_problems(size, self.token_counts(base, shape))
        for prompt in prompts:
            counts = self.prompt_token_counts(cfg, self.fit_prompt(cfg, prompt))
            yield from split_problems(size, counts, where=prompt.where)

    def data_sizes(self, cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[VideoSize]:
        """The size in pixels of each row's latents."""
        shapes = [self.stored_latents(cfg, row).shape[2:] for row in rows if "vae_latent" in row]
        return [self.roles(cfg).base.video_size(shape) for shape in shapes]

    def encoders(self, cfg: RunConfig, latents_source: LatentsSource | None) -> Sequence[StoredEncoder]:
        """The encoders whose output the run takes from its data."""
        return (VAE, TEXT_ENCODER) if latents_source == "data" else (TEXT_ENCODER,)

    def encoder_identity(
        self, cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool
    ) -> EncoderIdentity | None:
        """`encoders` of the first trained role's pipeline."""
        roles, wanted = self.roles(cfg), self.encoders(cfg, latents_source)
        where = f"roles.{roles.base_role}.path"
        identity = encoder_identity(roles.base.path, wanted, where=where, download=download)
        return None if identity is None else EncoderIdentity(roles.base_role, roles.base.path, identity)

    # --- a run ----------------------------------------------------------------------------------------------------------

    def _trains(self, cfg: RunConfig) -> bool:
        """Whether the run trains on this family's batches, and not only with its roles."""
        return cfg.recipe.family.rpartition(":")[2] == self.family

    def check_roles(self, cfg: RunConfig) -> list[Problem]:
        """Pipelines that are incomplete or damaged; see `ModelFamily.check_roles`."""
        problems: list[Problem] = []
        with noted(problems):
            for role in self.roles(cfg).folders if find_spec("bitsandbytes") is None else ():
                if (held := cfg.roles[role].base_precision) in OF_BITSANDBYTES:
                    found, fix = f"{held} needs bitsandbytes", "pip install 'fastvideo-diffusers[bitsandbytes]'"
                    problems.append(
                        Problem(f"{found}, which is not installed", f"roles.{role}.base_precision", fix=fix)
                    )
            for role, folder in self.roles(cfg).pipelines().items():
                with noted(problems):
                    self._check_files(cfg, role, folder)
                    if (size := cfg.training.sequence_parallel) > 1:
                        counts = self.head_counts(folder, where=f"roles.{role}.path").items()
                        named = {f"{kind} in {folder.path}": count for kind, count in counts}
                        problems += split_problems(size, named, fix="take a number that divides them")
        return problems

    def input_problems(
        self,
        cfg: RunConfig,
        *,
        prompts: Sequence[ValidationPrompt],
        rows: Sequence[Mapping[str, Any]],
        latents_source: LatentsSource | None,
        many_steps: bool,
    ) -> list[Problem]:
        """Prompts that cannot be sampled, data that does not fit the pipelines; see ParquetFamily."""
        problems: list[Problem] = []
        with noted(problems):
            self.roles(cfg)
        for prompt in prompts:
            with noted(problems):
                self.fit_prompt(cfg, prompt)
        for row in rows if self._roles is not None else ():
            with noted(problems):
                self.check_row(cfg, row, latents_source)
        if not problems and cfg.training.sequence_parallel > 1:
            problems += self._split_problems(cfg, prompts, rows, latents_source)
        if not problems:
            with noted(problems):
                self.check_schedule(cfg, rows, latents_source=latents_source, many_steps=many_steps)
        return list(dict.fromkeys(problems))

    def _check_files(self, cfg: RunConfig, role: str, folder: F) -> None:
        where, is_base = f"roles.{role}.path", role == self.roles(cfg).base_role and self._trains(cfg)
        check_undamaged(folder.path, self.components(folder), where=where)
        decodes = is_base and cfg.training.log_validation
        self.check_weights(folder, where=where, encodes=is_base, decodes=decodes)


@contextmanager
def noted(problems: list[Problem]) -> Iterator[None]:
    """Adds what a check raises to the problems."""
    try:
        yield
    except UserError as error:
        problems += error.problems
