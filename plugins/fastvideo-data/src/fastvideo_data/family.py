"""The base of families that train on parquet data sets: they open the data once, and look at it before a run is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.family import Findings, ModelFamily
from fastvideo_core.contracts.validator import ValidationPrompt, unread_negative_prompts
from fastvideo_core.distributed import context
from fastvideo_core.distributed.context import Mesh
from fastvideo_core.errors import ConfigError, Problem, UserError
from fastvideo_data.data_set import DataSet
from fastvideo_data.data_sources import DataSources
from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.loading.loader import ParquetLoader
from fastvideo_data.loading.sources import SourcesLoader
from fastvideo_data.run_checks import compare_encoders, normalisation_warnings, size_warnings
from fastvideo_data.trajectories import clean_ends, trajectory_tensors
from fastvideo_data.validation_prompts import prompts_of_run, read_validation_prompts
from fastvideo_data.video_sizes import VideoSize


class ParquetFamily(ModelFamily):
    """A family on parquet data; a subclass says what of it fits, as far as it knows."""

    def __init__(self) -> None:
        self._data: DataSources | None = None
        self._on_trajectories = False

    # --- what a subclass may say ----------------------------------------------------------------------------------------

    def wanted_tensors(self, cfg: RunConfig) -> Sequence[str]:
        """Names of the stored tensors that the run's data must hold."""
        return ("text_embedding",)

    def optional_tensors(self, cfg: RunConfig) -> Sequence[str]:
        """Names of those that are read besides where the data holds them."""
        return ("vae_latent",)

    def input_problems(
        self,
        cfg: RunConfig,
        *,
        prompts: Sequence[ValidationPrompt],
        rows: Sequence[Mapping[str, Any]],
        latents_source: LatentsSource | None,
        many_steps: bool,
    ) -> list[Problem]:
        """What is wrong with the run's pipelines, its prompts and its data.

        Args:
            prompts: of validation.
            rows: raw batches of one, one for each latent shape of the data; none where the data could not be read.
            latents_source: what the method will ask of prepare_batch; None when only running it can tell.
            many_steps: whether the student is sampled in many steps.
        """
        return []

    def timestep_shift(self, cfg: RunConfig) -> Callable[[Tensor], Tensor] | None:
        """The adapter's `shift_and_clamp_timestep`, before there is an adapter; None where the family does not say."""
        return None

    def video_size(self, cfg: RunConfig) -> VideoSize | None:
        """Of videos for which neither prompt nor run names one; None where the family does not say."""
        return None

    def encoder_identity(
        self, cfg: RunConfig, *, latents_source: LatentsSource | None, download: bool
    ) -> EncoderIdentity | None:
        """The encoders of the run's own pipeline, which must have made its data.

        Args:
            download: whether weights may be fetched; those of a folder need not.

        Returns:
            None where the family does not know, or their weights are not on this machine and may not be fetched.
        """
        return None

    def data_sizes(self, cfg: RunConfig, rows: Sequence[Mapping[str, Any]]) -> Sequence[VideoSize]:
        """The size in pixels of each row's latents; none where the family does not say. Nothing is wrong with the rows."""
        return ()

    # --- what it has of it ----------------------------------------------------------------------------------------------

    def data(self, cfg: RunConfig) -> DataSources:
        """The run's data, opened once, by all its processes together.

        Raises:
            ConfigError: there is no data_path.
            DataError: the data set cannot be used.
        """
        if self._data is None:
            wanted, optional = self.wanted_tensors(cfg), self.optional_tensors(cfg)
            if self._on_trajectories:
                wanted, optional = trajectory_tensors(wanted, optional)
            self._data = open_data(cfg, wanted=wanted, optional=optional)
        return self._data

    def loader(self, cfg: RunConfig) -> ParquetLoader | SourcesLoader:
        """This process's share of the run's data; see `parquet_loader`."""
        return parquet_loader(cfg, self.data(cfg))

    def rows(self, cfg: RunConfig) -> list[dict[str, Any]]:
        """Raw batches of one, one for each latent shape of the data; none where the run names no data.

        Those of a run on trajectories have the latents that these end in.

        Raises:
            DataError: the data set cannot be used.
        """
        if cfg.training.data_path is None:
            return []
        examples = self.data(cfg).examples()
        return [clean_ends(row) for row in examples] if self._on_trajectories else examples

    def check(
        self,
        cfg: RunConfig,
        *,
        latents_source: LatentsSource | None,
        many_steps: bool,
        download: bool,
        roles_known: bool = True,
    ) -> Findings:
        """Prompts, data and encoders of a run; see `ModelFamily.check`."""
        problems: list[Problem] = []
        warnings: list[str] = []
        facts: list[str] = []
        prompts: Sequence[ValidationPrompt] = ()
        rows: list[dict[str, Any]] = []
        training = cfg.training
        self._on_trajectories = latents_source == "trajectory"
        if training.data_path is not None:
            try:
                rows = self.rows(cfg)
                loader = self.loader(cfg)
                loaders = loader.loaders if isinstance(loader, SourcesLoader) else [loader]
                for data, own in zip(self.data(cfg).data_sets.values(), loaders, strict=True):
                    facts.append(
                        f"data: {data.num_samples} samples in {data.path} ({', '.join(data.tensor_names)}), "
                        f"{own.batches_per_epoch} batches per epoch and process"
                    )
                    warnings += normalisation_warnings(data, latents_source)
            except UserError as error:
                problems += error.problems
        try:
            if training.validation_dataset_file is not None:
                prompts = prompts_of_run(training)
            if prompts:
                facts.append(f"validation: {len(prompts)} prompts every {training.validation_steps} steps")
        except UserError as error:
            problems += error.problems
        if not roles_known:
            return Findings(tuple(problems), tuple(warnings), tuple(facts))
        problems += unread_negative_prompts(prompts, cfg.pipeline_config, cfg.recipe.family)
        problems += self.input_problems(
            cfg, prompts=prompts, rows=rows, latents_source=latents_source, many_steps=many_steps
        )
        if not problems:
            if latents_source in ("data", "trajectory") and rows:
                warnings += size_warnings(training, self.data_sizes(cfg, rows))
            knows_encoders = type(self).encoder_identity is not ParquetFamily.encoder_identity
            if training.data_path is not None and knows_encoders:
                try:
                    identity = self.encoder_identity(cfg, latents_source=latents_source, download=download)
                    for key, data in self.data(cfg).data_sets.items():
                        compared = compare_encoders(f"{key} ({data.path})", data.encoders, identity)
                        problems += compared.problems
                        warnings += compared.warnings
                except UserError as error:
                    problems += error.problems
        return Findings(tuple(problems), tuple(warnings), tuple(facts))

    def resume_problems(self, cfg: RunConfig, data_state: Any) -> list[Problem]:
        """Whether the stored position is one of this data; see `ModelFamily.resume_problems`."""
        of_this_package = ParquetLoader.is_state(data_state) or SourcesLoader.is_state(data_state)
        if cfg.training.data_path is None or not of_this_package:
            return []
        try:
            self.loader(cfg).load_state_dict(data_state)
        except UserError as error:
            return list(error.problems)
        return []

    def read_prompts(self, path: Path) -> Sequence[ValidationPrompt]:
        """FastVideo's validation JSON, or a text file with a prompt a line."""
        return read_validation_prompts(path)


def open_data(cfg: RunConfig, *, wanted: Sequence[str], optional: Sequence[str]) -> DataSources:
    """The data sets at `training.data_path`; arguments as `DataSet`. Collective.

    Raises:
        ConfigError: there is no data_path.
        DataError: the data set cannot be used.
    """
    if cfg.training.data_path is None:
        raise ConfigError(
            Problem(
                found="training.data_path is missing",
                where=cfg.source,
                allowed=f"a parquet data set; family '{cfg.recipe.family}' brings no data loader of its own",
                fix="make one with `fastvideo-distill preprocess`, then set training.data_path",
            )
        )
    return DataSources(cfg.training.data_sources, wanted=wanted, optional=optional, together=True)


def parquet_loader(cfg: RunConfig, data: DataSet | DataSources) -> ParquetLoader | SourcesLoader:
    """This process's share of data, in batches as the run asks for them.

    Where the run's processes are not started (`check`), the shares are those of `training.num_gpus`.
    """
    args, mesh = cfg.training, Mesh.current(cfg.training)
    return data.loader(
        batch_size=args.train_batch_size,
        seed=args.seed,
        rank=mesh.data_rank,
        size=mesh.data_size if context.world_size() > 1 else args.num_gpus // args.sequence_parallel,
        num_workers=args.dataloader_num_workers,
        skip_bad_rows=args.on_bad_row == "skip",
    )
