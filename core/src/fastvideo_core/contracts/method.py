"""The base of every method: what the trainer calls, with defaults that suit most algorithms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias, cast, get_args, get_origin

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import TypeVar, get_original_bases

from fastvideo_core.config.base import PipelineConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import DistillAdapter, LatentsSource, OnTrainStart
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.family import ModelFamily
from fastvideo_core.contracts.noise_ranges import Draw, draw_range, range_of, ranges_of_roles
from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.contracts.tracker import Tracker
from fastvideo_core.contracts.validator import DistillValidator, ValidationRequest
from fastvideo_core.diffusion.flow import expand_to
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.distributed import context
from fastvideo_core.distributed.context import Mesh
from fastvideo_core.errors import Problem

LossMap: TypeAlias = dict[str, Tensor]
"""Losses by name; `total_loss` is what is back-propagated."""
StepResult: TypeAlias = tuple[LossMap, dict[str, Any], dict[str, Any]]
"""(losses, what `backward` needs besides, metrics) of a phase."""
Needs = TypeVar("Needs", default=Any)
"""The Protocol of everything that a method calls on the family's adapter."""


class DistillMethod(nn.Module, Generic[Needs]):
    """A training algorithm over roles.

    Subclasses create optimizers and schedulers in `__init__`, write them into the role handles, and implement
    `single_train_step`. They are layout-agnostic: element-wise on latents, reducing over all dims but the first.
    `cfg.method_config` is parsed by the plug-in's config class; `adapter` may be asked only for what `needs` names. `keeps_pairs`
    says that the student learns to make of the same noise what the teacher makes of it.
    """

    keeps_pairs: ClassVar[bool] = False

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: Needs, validator: DistillValidator | None = None
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.bundle = bundle
        self.adapter = adapter
        self.validator = validator
        self.tracker = Tracker()
        self.mesh = Mesh.current(cfg.training)
        self.rng = RandomStreams(cfg.training.seed, self.mesh.data_rank, context.device())
        self._ranges_of_iterations: dict[str, tuple[int, Tensor]] = {}  # by shared stream
        self.role_modules = nn.ModuleDict({handle.name: nn.ModuleDict(handle.modules) for handle in bundle})
        for handle in bundle:
            handle.set_trainable()

    @classmethod
    def needs(cls, cfg: RunConfig) -> tuple[type, ...]:
        """The Protocols whose members a run calls on the adapter; by default the one that the class is generic in (its bound)."""
        declared = _argument(cls)
        declared = getattr(declared, "__bound__", declared)
        return () if declared in (None, Any) else (declared,)

    @classmethod
    def extra_roles(cls, cfg: RunConfig, bundle: RoleManager, adapter: Needs) -> Iterable[RoleHandle]:
        """Roles that the method makes itself, a discriminator say; by default its `copied_roles`.

        Called before weights are in memory; the roles, which run.yaml does not name, are then placed like all others.
        """
        for name, original in cls.copied_roles(cfg).items():
            copied = bundle[original].copy(name)
            copied.saved = True
            yield copied

    @classmethod
    def copied_roles(cls, cfg: RunConfig) -> Mapping[str, str]:
        """Roles that begin as copies of roles of run.yaml and that the method changes: {"target": "student"}.

        They are frozen and saved, and `check` counts their memory.
        """
        return {}

    @classmethod
    def latents_source(cls, cfg: RunConfig) -> LatentsSource | None:
        """Whether a run trains on the data's latents (`data`) or only their shape counts (`zeros`); None if it cannot be told."""
        return "data"

    @classmethod
    def student_schedule(cls, config: Any, warp: Callable[[Tensor], Tensor]) -> FewStepSchedule | None:
        """The few-step schedule that the student is trained for; None when it is sampled in many steps.

        `config` is the parsed `method_config`, `warp` the family's `shift_and_clamp_timestep`.
        """
        return None

    @classmethod
    def check(cls, cfg: RunConfig, family: ModelFamily) -> Iterable[Problem]:
        """What is wrong with a run, before weights, that its options do not tell; `family` is the recipe's, which is fine."""
        return ()

    @classmethod
    def build(
        cls, cfg: RunConfig, bundle: RoleManager, adapter: Needs, validator: DistillValidator | None = None
    ) -> DistillMethod[Needs]:
        """The method for a run; raises a UserError when roles or settings do not fit it."""
        return cls(cfg, bundle, adapter, validator)

    # --- one step -------------------------------------------------------------------------------------------------

    @abstractmethod
    def single_train_step(
        self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0
    ) -> StepResult | Iterator[StepResult]:
        """One accumulation round on one raw batch: (loss_map, outputs, metrics), or several of them, one per phase.

        Each yielded phase is back-propagated before the next is computed; `metrics` are detached tensors or numbers.
        """

    def backward(self, loss_map: LossMap, outputs: Mapping[str, Any], *, grad_accum_rounds: int = 1) -> None:
        """Accumulates the gradient of total_loss / grad_accum_rounds."""
        (loss_map["total_loss"] / grad_accum_rounds).backward()  # type: ignore[no-untyped-call]

    # --- the update policy ----------------------------------------------------------------------------------------

    def due_roles(self, iteration: int) -> Sequence[RoleHandle]:
        """The roles updated in this iteration (1-based); by default every trainable one."""
        return [handle for handle in self.bundle if handle.trainable]

    def get_optimizers(self, iteration: int) -> list[Optimizer]:
        """The optimizers stepped in this iteration."""
        return [optimizer for handle in self.due_roles(iteration) for optimizer in handle.optimizers.values()]

    def get_lr_schedulers(self, iteration: int) -> list[LRScheduler]:
        """The schedulers stepped in this iteration: those of the optimizers that are."""
        return [scheduler for handle in self.due_roles(iteration) for scheduler in handle.lr_schedulers.values()]

    def max_grad_norm(self, optimizer: Optimizer) -> float:
        """The clipping threshold of an optimizer's gradients: its role's own, else training's; 0 is no clipping."""
        owners = [handle.name for handle in self.bundle if optimizer in handle.optimizers.values()]
        norm: float = self.cfg.role_setting(owners[0] if owners else "", "max_grad_norm")
        return norm

    def learning_rates(self) -> dict[str, float]:
        """The current learning rate of every optimizer, named `lr/<role>` (`lr/<role>/<name>` where a role has several)."""
        rates = {}
        for handle in self.bundle:
            for name, optimizer in handle.optimizers.items():
                key = f"lr/{handle.name}" if len(handle.optimizers) == 1 else f"lr/{handle.name}/{name}"
                rates[key] = float(optimizer.param_groups[0]["lr"])
        return rates

    def optimizers_schedulers_step(self, iteration: int) -> None:
        """Steps what is due."""
        for optimizer in self.get_optimizers(iteration):
            optimizer.step()
        for scheduler in self.get_lr_schedulers(iteration):
            scheduler.step()

    def optimizers_zero_grad(self, iteration: int) -> None:
        """Drops ALL gradients, also of optimizers that were not due, so that no stale one survives to another update."""
        for handle in self.bundle:
            for optimizer in handle.optimizers.values():
                optimizer.zero_grad(set_to_none=True)

    # --- around the loop ------------------------------------------------------------------------------------------

    def set_tracker(self, tracker: Tracker) -> None:
        """Gives the run's tracker to the method and its validator."""
        self.tracker = tracker
        if self.validator is not None:
            self.validator.set_tracker(tracker)

    def on_train_start(self) -> None:
        """Once, before the first step."""
        if isinstance(self.adapter, OnTrainStart):
            self.adapter.on_train_start()

    def log_validation(self, iteration: int) -> None:
        """Samples videos for the log; called every `validation_steps` iterations when `log_validation` is on."""

    def validation_dir(self, iteration: int) -> Path:
        """Where the videos of this iteration go."""
        return Path(self.cfg.training.output_dir) / "validation" / f"step-{iteration:06d}"

    def many_step_requests(self, handle: RoleHandle, iteration: int, *, label: str = "") -> Iterator[ValidationRequest]:
        """One for every number of steps at every guidance scale that `training` names, told apart by label if several."""
        training = self.cfg.training
        pairs = list(product(training.validation_sampling_steps, training.validation_guidance_scale))
        for steps, scale in pairs:
            told_apart = f"steps{steps}-cfg{scale:g}" if len(pairs) > 1 else ""
            name, fixed = "-".join(filter(None, (label, told_apart))), len(pairs) > 1
            one = ValidationRequest(handle, self.validation_dir(iteration), label=name, fixed_steps=fixed)
            yield replace(one, sampling_steps=steps, guidance_scale=scale)

    def few_step_request(
        self, handle: RoleHandle, schedule: FewStepSchedule, iteration: int, *, label: str = ""
    ) -> ValidationRequest:
        """One for a role that is sampled on its few-step schedule, without guidance, as the run's `sampler_kind` says."""
        kind, folder = self.cfg.section(PipelineConfig).sampler_kind, self.validation_dir(iteration)
        return ValidationRequest(handle, folder, kind, sampling_timesteps=schedule.timesteps, label=label)

    # --- state ----------------------------------------------------------------------------------------------------

    def checkpoint_state(self) -> dict[str, Any]:
        """What the algorithm must not lose besides weights, optimizers, schedulers and random streams."""
        return {}

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Takes back what `checkpoint_state` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, but the checkpoint holds {', '.join(state)}")

    # --- for subclasses -------------------------------------------------------------------------------------------

    def prepare_batch(
        self, raw_batch: Any, *, latents_source: LatentsSource = "data", current_vsa_sparsity: float = 0.0
    ) -> TrainingBatch:
        """The adapter's batch, with captions dropped at `training.training_cfg_rate`, drawn anew each time."""
        adapter, own = cast("DistillAdapter", self.adapter), self.rng.local("prepare_batch")
        batch = adapter.prepare_batch(
            raw_batch, current_vsa_sparsity=current_vsa_sparsity, latents_source=latents_source, generator=own
        )
        rate = self.cfg.training.training_cfg_rate
        if rate > 0:
            generator = self.rng.local("caption_dropout")
            dropped = torch.rand(batch.batch_size, generator=generator, device=generator.device) < rate
            batch = batch.with_conditioning_dropped(dropped)
        return batch

    def noise_like(self, latents: Tensor, stream: str) -> Tensor:
        """Standard normal noise of the latents' shape [B, ...], float32, from the local stream `stream`."""
        generator = self.rng.local(stream)
        noise = torch.randn(latents.shape, generator=generator, device=generator.device, dtype=torch.float32)
        return noise.to(latents.device)

    def draw_in_one_range(
        self,
        handles: Sequence[RoleHandle],
        draw: Draw,
        size: int,
        *,
        iteration: int,
        stream: str,
        shared: str | None = None,
        above: float = 0.0,
    ) -> Tensor:
        """Timesteps [size] of a micro-batch, so that one network of each role serves all samples of an iteration; or [size, K].

        Samples are drawn from the local stream `stream`. Where a role of `handles`, which are all that are called at these
        timesteps, has several networks (`noise_ranges`), one value is drawn from the shared stream `shared`, by default of the
        same name; its range holds for the iteration, its rounds, all processes and all draws with that stream, and samples are
        drawn until they lie in it: each still has the distribution of `draw`. Where `draw` gives several timesteps of each
        sample, at which the roles are called one after another, each has its own range. All lie at `above` or higher. Raises
        ContractError where no range is reached that is trained.
        """
        shared = shared or stream
        cuts, common = ranges_of_roles(self.adapter, handles, above)
        local = self.rng.local(stream)
        t = draw(size, local)
        if not cuts:
            return t
        if self._ranges_of_iterations.get(shared, (None,))[0] != iteration:
            chosen = draw_range(draw, self.rng.shared(shared), cuts, common, handles)
            self._ranges_of_iterations[shared] = iteration, chosen
        wanted = self._ranges_of_iterations[shared][1].to(t.device)
        while (outside := (range_of(t, cuts) != wanted).reshape(size, -1).any(dim=1)).any():
            t = torch.where(expand_to(outside, t), draw(size, local), t)
        return t


def _argument(kind: type) -> Any:
    """What a class gives to DistillMethod's parameter, itself or through its bases; None where it gives nothing."""
    for base in get_original_bases(kind):
        origin, given = get_origin(base) or base, get_args(base)
        if origin is DistillMethod:
            return given[0] if given else None
        if isinstance(origin, type) and issubclass(origin, DistillMethod):
            inherited = _argument(origin)
            parameters = getattr(origin, "__parameters__", ())
            return given[parameters.index(inherited)] if given and inherited in parameters else inherited
    return None
