"""From a validated run.yaml to a runtime: the only place where config, registry, family and method meet."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint.choice import Choice, choose
from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.checkpoint.weights import describe
from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.sections import GuidedPipelineConfig, PipelineConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.method import DistillMethod, check_parameters
from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.contracts.roles import RoleManager
from fastvideo_core.contracts.routing import check_adapters, route
from fastvideo_core.dispatch import preflight
from fastvideo_core.dispatch.plugins import build_callbacks, method_class, used_plugins
from fastvideo_core.dispatch.role_weights import layered, load_role, pin_role_paths, role_source, with_base_paths
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.placing.materialise import materialise
from fastvideo_core.placing.shard import is_offloaded, shard_roles
from fastvideo_core.registry.registry import PluginRegistry
from fastvideo_core.tracking.display import Display
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_core.weights.lora import add_adapters, initialise_adapters
from fastvideo_data.data_set import DataSet
from fastvideo_data.loading.loader import ParquetLoader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillRuntime:
    """Everything that a run needs, built and checked; `train` runs it.

    Args:
        cfg: the run's configuration, with role paths that mean the same whenever and from wherever they are read.
        start_step: the step that the resumed checkpoint was taken after; 0 for a new run.
    """

    cfg: RunConfig
    training_args: TrainingArgs
    method: DistillMethod
    dataloader: Iterable[Any]
    start_step: int
    callbacks: CallbackManager
    checkpoint_manager: CheckpointManager

    def train(self, display: Display | None = None) -> None:
        """Trains to `max_train_steps`; `display` shows the logged steps."""
        trainer = DistillTrainer(self.training_args, config=self.cfg.resolved(), display=display)
        trainer.run(
            self.method,
            self.dataloader,
            self.training_args.max_train_steps,
            self.start_step,
            checkpoint_manager=self.checkpoint_manager,
            callbacks=self.callbacks,
        )


def build_runtime_from_config(cfg: RunConfig, registry: PluginRegistry) -> DistillRuntime:
    """Builds roles, method, data, callbacks and checkpoints of a run.

    Raises:
        UserError: whatever does not fit, before anything is trained or written.
    """
    preflight.check_run(cfg, registry)
    args = cfg.training
    implementation = method_class(cfg, registry)
    # Nothing of ours draws from torch's global generator, but dropout layers and third parties' code do.
    torch.manual_seed(stream_seed(args.seed, "global", context.rank()))
    resumed = resumed_checkpoint(cfg)
    for note in resumed.notes() if resumed is not None and context.is_main_process() else ():
        logger.error(note)
    earlier = None if resumed is None else describe(resumed.path).config
    cfg = resolve_pipeline_config(pin_role_paths(cfg, earlier))
    _tell_another_negative_prompt(cfg, (earlier or {}).get("pipeline_config") or {})
    checkpoint_manager = build_checkpoint_manager(cfg, registry)
    start_step = checkpoint_manager.prepare_resume(resumed)
    preflight.check_steps_left(cfg, start_step)

    components = build_components(cfg, registry)
    method_plugin = registry.get("methods", cfg.recipe.method)
    needed = implementation.needs(cfg)
    check_adapters(components.adapter, needed, method=cfg.recipe.method, family=cfg.recipe.family)
    components.bundle.require_roles(method_plugin.spec.roles)
    place_roles(components.bundle, cfg)
    method = implementation.build(cfg, components.bundle, components.adapter, components.validator)
    check_parameters(method)
    return DistillRuntime(
        cfg=cfg,
        training_args=args,
        method=method,
        dataloader=components.dataloader if components.dataloader is not None else parquet_loader(cfg),
        start_step=start_step,
        callbacks=build_callbacks(cfg, registry),
        checkpoint_manager=checkpoint_manager,
    )


def resolve_pipeline_config(cfg: RunConfig) -> RunConfig:
    """The run with its family's section as `PipelineConfig.resolve` gives it."""
    if not isinstance(cfg.pipeline_config, PipelineConfig):
        return cfg
    return replace(cfg, pipeline_config=cfg.pipeline_config.resolve(with_base_paths(cfg)))


def _tell_another_negative_prompt(cfg: RunConfig, earlier: Mapping[str, Any]) -> None:
    """Checkpoints keep the text in full, so that a `default` that has become another one is noticed."""
    if not isinstance(cfg.pipeline_config, GuidedPipelineConfig) or not context.is_main_process():
        return
    before, now = earlier.get("negative_prompt"), cfg.pipeline_config.negative_prompt
    if before is not None and before != now:
        logger.warning(
            "pipeline_config.negative_prompt: the checkpoint was trained with %s, and the run goes on with %s; set it to the "
            "former to go on as before",
            *(json.dumps(text, ensure_ascii=False) for text in (before, now)),
        )


def build_checkpoint_manager(cfg: RunConfig, registry: PluginRegistry) -> CheckpointManager:
    """Checkpoints as `training` asks for them."""
    return CheckpointManager(
        Path(cfg.training.output_dir),
        every=cfg.training.training_state_checkpointing_steps,
        keep=cfg.training.checkpoints_total_limit,
        config_yaml=cfg.to_yaml(),
        versions=plugin_versions(cfg, registry),
        background=cfg.training.async_checkpointing,
        skip_errors=cfg.training.on_checkpoint_error == "skip",
        new_data=cfg.training.resume_with_new_data,
    )


def resumed_checkpoint(cfg: RunConfig, *, put_back: bool = True) -> Choice | None:
    """The checkpoint that the run goes on from, None for a new run; see `checkpoint.choice.choose`. Collective.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    which = cfg.training.resume_from_checkpoint
    return None if which is None else choose(which, Path(cfg.training.output_dir), put_back=put_back)


def build_components(cfg: RunConfig, registry: PluginRegistry) -> ModelComponents:
    """Every family of the run builds its own roles; the adapter sends each call to its role's family.

    Validator and dataloader are those of the recipe's family.
    """
    sources = {name: role_source(name, role) for name, role in cfg.roles.items()}
    based = with_base_paths(cfg)
    built = {}
    for family in cfg.families:
        build: Any = registry.resolve(registry.get("models", family), "build")
        built[family] = build(based)
        for handle in built[family].bundle:
            handle.family = family
    main: ModelComponents = built[cfg.recipe.family]
    roles = {handle.name: handle for components in built.values() for handle in components.bundle}
    main.bundle = RoleManager({name: roles[name] for name in cfg.roles if name in roles})
    adapters = {family: components.adapter for family, components in built.items()}
    main.adapter = route(adapters, cfg.recipe.family, main.bundle)
    for handle in main.bundle:
        if handle.weights is None:
            load_role(handle, sources[handle.name])
        else:
            handle.weights = layered(handle.weights, sources[handle.name])
        if context.is_main_process():
            logger.info("role %s: %s", handle.name, sources[handle.name])
    return main


def place_roles(bundle: RoleManager, cfg: RunConfig) -> None:
    """Adds the roles' adapters, shards everything, and only then gives memory and weights to what is on meta.

    Raises:
        UserError: adapters, processes or weights do not fit the networks.
    """
    for handle in bundle:
        if (lora := cfg.roles[handle.name].lora) is not None:
            add_adapters(handle, lora)
    shard_roles(bundle, cfg.training)
    for handle in bundle:
        materialise(handle, torch.device("cpu") if is_offloaded(handle, cfg.training) else context.device())
        if handle.lora is not None:
            initialise_adapters(handle, cfg.training.seed)


def plugin_versions(cfg: RunConfig, registry: PluginRegistry) -> dict[str, str]:
    """The versions of torch, core and every plug-in that the run uses, by distribution."""
    from fastvideo_core import __version__

    versions = {"torch": str(torch.__version__), "fastvideo-core": __version__}
    for plugin in used_plugins(cfg, registry):
        versions[plugin.provenance.distribution] = plugin.provenance.version
    return versions


def parquet_loader(cfg: RunConfig, processes: int | None = None, data: DataSet | None = None) -> ParquetLoader:
    """Core's loader over `training.data_path`.

    Args:
        processes: how many share the data; None are those that run.
        data: the data set, if it is open already.

    Raises:
        ConfigError: there is no data_path.
        DataError: the data set cannot be used.
    """
    args = cfg.training
    if args.data_path is None:
        raise ConfigError(
            Problem(
                found="training.data_path is missing",
                where=cfg.source,
                allowed=f"a parquet data set; family '{cfg.recipe.family}' brings no data loader of its own",
                fix="make one with `fastvideo-distill preprocess`, then set training.data_path",
            )
        )
    return (data or preflight.open_data(cfg, args.data_path)).loader(
        batch_size=args.train_batch_size,
        seed=args.seed,
        rank=context.rank(),
        size=context.world_size() if processes is None else processes,
        num_workers=args.dataloader_num_workers,
        skip_bad_rows=args.on_bad_row == "skip",
    )
