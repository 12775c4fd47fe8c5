"""A run's costs per iteration, from one iteration of each kind on fake ranks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_iter

from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, is_lora_parameter
from fastvideo_core.dispatch.examine import Run
from fastvideo_core.dispatch.memory_estimate import RunEstimate, estimate_run
from fastvideo_core.distributed.context import mesh_shape
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_tools.simulate.iterate import FORWARD, WITH_GRAPH, Calls, iterate, mean_calls
from fastvideo_tools.simulate.meter import Cost, Meter, Part
from fastvideo_tools.simulate.ranks import fake_ranks, rehearse

PATTERN = 1000
"""Iterations that are looked at to tell how often each kind comes."""


@dataclass(frozen=True)
class Held:
    """What rank 0 holds of a role, in bytes: shards, whole weights while it computes, and the `stored` weights of all."""

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    stored: int


@dataclass(frozen=True)
class Kind:
    """A kind of iteration: the roles that it updates, how many of all iterations are such, and what each of its parts costs.

    `calls` are the network calls of the mean one by part; `drawn` those of the one whose costs `parts` are.
    """

    due: tuple[str, ...]
    share: float
    parts: Mapping[Part, Cost]
    drawn: Mapping[Part, float]
    calls: Mapping[Part, float]

    def mean(self, others: Iterable[Kind]) -> dict[Part, Cost]:
        """What the mean iteration costs; a call that was not drawn costs what it does in another kind, or with a graph."""
        found = {part: (cost, 1.0) for part, cost in self.parts.items()}
        for part, calls in self.calls.items():
            found[part] = _of_call(part, (self, *others)), calls
        result: dict[Part, Cost] = defaultdict(Cost)
        for part, (cost, times) in found.items():
            result[part].add(cost, times)
        return dict(result)


def _of_call(part: Part, kinds: Iterable[Kind]) -> Cost:
    """The mean cost of one call."""
    every = list(kinds)
    for wanted in (part, Part(part.role, WITH_GRAPH), Part(part.role, FORWARD)):
        for kind in every:
            if wanted in kind.drawn:
                cost = Cost()
                cost.add(kind.parts[wanted], 1 / kind.drawn[wanted])
                return cost
    return Cost()


@dataclass(frozen=True)
class Simulation:
    """One iteration of each kind of a run, by one of its ranks.

    `peak` is the most that rank 0 holds at once, in bytes; `samples` are trained on in an iteration by all ranks.
    """

    run: Run
    gpus: int
    replicas: int
    shards: int
    roles: Mapping[str, Held]
    kinds: tuple[Kind, ...]
    peak: int
    estimate: RunEstimate
    notes: tuple[str, ...] = field(default=())

    @property
    def samples(self) -> int:
        """Samples of an iteration over all ranks."""
        training = self.run.cfg.training
        size = training.train_batch_size * training.gradient_accumulation_steps
        return size * self.gpus // training.sequence_parallel

    @property
    def state(self) -> int:
        """Bytes that rank 0 holds from step to step."""
        return sum(held.parameters + held.optimizer for held in self.roles.values())

    def mean(self) -> list[tuple[Kind, dict[Part, Cost]]]:
        """Each kind with what its mean iteration costs."""
        return [(kind, kind.mean(other for other in self.kinds if other is not kind)) for kind in self.kinds]


def simulate(run: Run, *, said: Callable[[str], None] = lambda text: None) -> Simulation:
    """Goes through one iteration of each kind of a run on so many fake ranks as its `num_gpus`.

    Raises:
        ConfigError: a family gives no outline of its networks.
        UserError: as when the run is built for training.
    """
    gpus = run.cfg.training.num_gpus
    replicas, shards = mesh_shape(run.cfg.training, gpus)
    if (estimate := estimate_run(run)) is None:
        found = (
            f"{', '.join(map(repr, run.cfg.families))}: a family has no `outline`, which gives networks without weights"
        )
        raise ConfigError(Problem(found, "recipe.family", fix="whoever wrote the family defines ModelFamily.outline"))
    said("memory is estimated")
    with fake_ranks(gpus):
        rehearsal = rehearse(run)
        method = rehearsal.method
        said("roles are built")
        shares = Counter(tuple(h.name for h in method.due_roles(number)) for number in range(1, PATTERN + 1))
        first = {due: next(n for n in range(1, PATTERN + 1) if _due(method, n) == due) for due in shares}
        passed, calls_of, peaks, gathered = [], {}, [], defaultdict[str, int](int)
        for due, number in sorted(first.items(), key=lambda item: item[1]):
            meter = Meter(_tensors(method), rehearsal.fake)
            calls = Calls(method, meter, rehearsal.fake)
            iterate(calls, rehearsal.batch, number)
            said(f"iteration of {' and '.join(due)} is gone through")
            passed.append((due, dict(meter.costs), dict(calls.count)))
            peaks.append(meter.peak)
            for role, size in meter.gathered.items():
                gathered[role] = max(gathered[role], size)
            calls_of[due] = calls
        averaged = mean_calls(method, calls_of, rehearsal.batch)
        roles = {handle.name: held_of(handle, gathered[handle.name]) for handle in method.bundle}
    kinds = tuple(
        Kind(due, shares[due] / PATTERN, parts, drawn, averaged.get(due, drawn) if averaged else drawn)
        for due, parts, drawn in passed
    )
    notes = () if averaged else ("calls of networks are those of the iterations gone through, not their mean",)
    simulated = Simulation(run, gpus, replicas, shards, roles, kinds, 0, estimate, notes)
    ema = sum(role.ema for role in estimate.roles.values())
    return replace(simulated, peak=simulated.state + ema + max(peaks))


def _due(method: DistillMethod, iteration: int) -> tuple[str, ...]:
    return tuple(handle.name for handle in method.due_roles(iteration))


def local(tensor: Tensor) -> Tensor:
    """This rank's part."""
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part


def _tensors(method: DistillMethod) -> list[Tensor]:
    modules = [module for handle in method.bundle for module in handle.modules.values()]
    held = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    states = (state for handle in method.bundle for one in handle.optimizers.values() for state in one.state.values())
    return [local(tensor) for tensor in (*held, *(t for state in states for t in tree_iter(state)))
            if isinstance(tensor, Tensor)]  # fmt: skip


def held_of(handle: RoleHandle, gathered: int) -> Held:
    """What this rank holds of a role that is placed and has an optimizer."""
    parameters = [parameter for _, parameter in handle.named_parameters()]
    buffers = [] if handle.borrows else [b for module in handle.modules.values() for b in module.buffers()]
    optimizer = sum(
        local(value).nbytes
        for one in handle.optimizers.values()
        for state in one.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
    trained = handle.trainable_parameters()
    return Held(
        sum(local(tensor).nbytes for tensor in (*parameters, *buffers)),
        sum(local(tensor).nbytes for tensor in trained),
        optimizer,
        gathered,
        sum(p.numel() * p.element_size() for key, p in handle.named_parameters() if not is_lora_parameter(key)),
    )
