"""Builds a run: its roles, adapter, method, data, callbacks and checkpoints."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.config.run import RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.contracts.roles import RoleManager
from fastvideo_core.dispatch.examine import Run, examine, no_validator
from fastvideo_core.dispatch.plugin_checks import build_callbacks, check_adapters, used_plugins
from fastvideo_core.dispatch.role_weights import layered, load_role
from fastvideo_core.dispatch.routing import route, route_validator
from fastvideo_core.distributed import context
from fastvideo_core.distributed.context import Mesh
from fastvideo_core.errors import ContractError, Problem
from fastvideo_core.placing.materialise import materialise
from fastvideo_core.placing.shard import on_host, shard_roles
from fastvideo_core.registry.registry import PluginRegistry
from fastvideo_core.tracking.display import Display
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_core.weights.lora import add_lora, initialise_lora
from fastvideo_core.weights.shared import share_networks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillRuntime:
    """Everything that a run needs, built and checked."""

    run: Run
    method: DistillMethod
    dataloader: Iterable[Any]
    callbacks: CallbackManager
    checkpoint_manager: CheckpointManager

    @property
    def cfg(self) -> RunConfig:
        """The run's configuration as it is kept."""
        return self.run.cfg

    @property
    def training_args(self) -> TrainingArgs:
        """Its `training` section."""
        return self.run.cfg.training

    @property
    def start_step(self) -> int:
        """The step of its resumed checkpoint, 0 for a new run."""
        return 0 if self.run.resumed is None else self.run.resumed.step

    def train(self, display: Display | None = None) -> None:
        """Trains to `max_train_steps`; `display` shows the logged steps."""
        steps, manager = self.training_args.max_train_steps, self.checkpoint_manager
        trainer = DistillTrainer(self.training_args, config=self.cfg.resolved(), display=display)
        trainer.run(self.method, self.dataloader, steps, self.start_step, manager, self.callbacks)


def build_runtime_from_config(cfg: RunConfig, registry: PluginRegistry) -> DistillRuntime:
    """Builds roles, method, data, callbacks and checkpoints of a run. Collective.

    Raises UserError for whatever does not fit, before anything is trained or written.
    """
    run, found = examine(cfg, registry, starts=True)
    if context.is_main_process():
        for warning in found.warnings:
            logger.warning(warning)
    cfg, training = run.cfg, run.cfg.training
    # Nothing of ours draws from torch's global generator, but dropout layers and third parties' code do.
    torch.manual_seed(stream_seed(training.seed, "global", Mesh.current(training).data_rank))
    versions = {one.provenance.distribution: one.provenance.version for one in used_plugins(cfg, registry)}
    checkpoint_manager = CheckpointManager(cfg, versions, run.resumed)
    components = build_components(run)
    if components.dataloader is None:
        no_data = f"the family '{cfg.recipe.family}' gives no data loader, and the run trains on its batches"
        raise ContractError(Problem(no_data, where="recipe.family", fix="take another family for recipe.family"))
    if training.log_validation and components.validator is None:
        raise ContractError(no_validator(cfg))
    method = build_method(run, components, _load_roles)
    callbacks = build_callbacks(cfg, registry)
    return DistillRuntime(run, method, components.dataloader, callbacks, checkpoint_manager)


def build_method(run: Run, components: ModelComponents, load: Callable[[RoleManager, Run], None]) -> DistillMethod:
    """The method on the run's roles, its own among them; `load` gives sharded roles memory and weights. Collective."""
    cfg, bundle = run.cfg, components.bundle
    bundle.require_roles(run.registry.get("methods", cfg.recipe.method).spec.roles)
    for handle in list(run.method.extra_roles(cfg, bundle, components.adapter)):
        if handle.name in bundle:
            taken = f"the method makes a role '{handle.name}', and the run has one of that name"
            raise ContractError(Problem(taken, where="extra_roles", fix="name it otherwise"))
        handle.family = handle.family or cfg.recipe.family
        bundle.roles[handle.name] = handle
    for handle in bundle:
        configured = handle.copy_of or handle.name
        if configured in cfg.roles and (lora := cfg.roles[configured].lora) is not None:
            add_lora(handle, lora)
    shard_roles(bundle, cfg.training)
    load(bundle, run)
    method = run.method.build(cfg, bundle, components.adapter, components.validator)
    check_parameters(method)
    return method


def build_components(run: Run) -> ModelComponents:
    """Every family of the run builds its own roles; the adapter sends each call to its role's family.

    The dataloader is that of the recipe's family; each role is sampled by its own family's validator.
    """
    built = {name: family.build(run.based) for name, family in run.families.items()}
    roles = {}
    for name, components in built.items():
        for handle in components.bundle:
            handle.family, roles[handle.name] = name, handle
    main: ModelComponents = built[run.cfg.recipe.family]
    main.bundle = RoleManager({name: roles[name] for name in run.cfg.roles if name in roles})
    for handle in main.bundle:
        if (owner := run.cfg.roles[handle.name].share) is not None:
            share_networks(handle, main.bundle[owner])
        if (chosen := run.cfg.roles[handle.name].train_modules) is not None:
            handle.train_only(chosen)
    adapters = {name: components.adapter for name, components in built.items()}
    check_adapters(run.cfg, run.method.needs(run.cfg), adapters)
    main.adapter = route(adapters, run.cfg.recipe.family, main.bundle)
    main.validator = route_validator({name: components.validator for name, components in built.items()})
    for handle in main.bundle:
        source = run.sources[handle.name]
        if handle.borrows:
            pass  # its weights are its owner's
        elif handle.weights is None:
            load_role(handle, source, run.families[handle.family])
        else:
            handle.weights = layered(handle.weights, source, run.families[handle.family])
            if handle.quantise is not None:
                handle.weights = handle.quantise(handle.weights)
        if context.is_main_process():
            logger.info("role %s: %s", handle.name, source)
    return main


def _load_roles(bundle: RoleManager, run: Run) -> None:
    """Gives memory and weights to what is on meta."""
    cfg = run.cfg
    for handle in bundle:
        materialise(handle, {p for name in handle.modules for p in on_host(handle, name, cfg.training)})
    for handle in bundle:
        if handle.lora is not None:
            initialise_lora(handle, cfg.training.seed, run.initial_lora(handle))


def check_parameters(method: DistillMethod) -> None:
    """Raises ContractError where a method trains what is no role's: its gradient would not be shared, nor would it be saved."""
    of_roles = {id(parameter) for handle in method.bundle for _, parameter in handle.named_parameters()}
    own = {id(p): name for name, p in method.named_parameters() if p.requires_grad and id(p) not in of_roles}
    trained = [f"its own parameter '{name}'" for name in own.values()]
    for handle in method.bundle:
        for name, optimizer in handle.optimizers.items():
            stepped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            if unknown := [str(list(p.shape)) for p in stepped if id(p) not in of_roles | own.keys()]:
                where = f"in the optimizer '{name}' of role '{handle.name}'"
                trained.append(f"parameters of shape {', '.join(unknown)} {where}")
    if trained:
        found, allowed = f"it trains {'; '.join(trained)}, which no role has", "parameters of the roles' modules"
        fix = "make it a module of a trainable role of its own (see `extra_roles`), or call requires_grad_(False)"
        raise ContractError(Problem(found, type(method).__qualname__, allowed, fix))
