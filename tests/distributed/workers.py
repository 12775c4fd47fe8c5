"""What the ranks of the distributed tests do; `ranks.run_workers` runs one by its name."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.dispatch import routing
from fastvideo_core.distributed import context
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_rcm.tangent import directional_derivative
from fastvideo_testing.runs import build_run, toy_family
from fastvideo_tools.simulate.meter import Cost, Meter
from fastvideo_tools.simulate.simulation import held_of
from tests.distributed.draws import GlobalDraws
from tests.distributed.two_networks import Observed, run_of, two_networks_world
from tests.methods import sections

WORKERS: dict[str, Callable[..., None]] = {}


def worker(function: Callable[..., None]) -> Callable[..., None]:
    WORKERS[function.__name__] = function
    return function


def toy_run(method: str, output_dir: Path, **training: Any) -> dict[str, Any]:
    options = {"dmd_denoising_steps": [1000, 750, 500]} if method == "dmd2" else {}
    return {
        "recipe": {"family": "toy", "method": method},
        **sections(method, lambda role: f"toy/{role}", **options),
        "training": {
            "seed": 3,
            "output_dir": str(output_dir),
            "max_train_steps": 20,
            "learning_rate": 1e-2,
            "num_gpus": context.world_size(),
            **training,
        },
    }


def full(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def weights(method: Any) -> dict[str, torch.Tensor]:
    return {
        f"{handle.name}.{name}": full(parameter)
        for handle in method.bundle
        for name, parameter in handle.named_parameters()
    }


def losses(output_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in sorted(line) if "loss" in key or key == "grad_norm"} for line in lines]


@worker
def equality(out: Path, *, method: str, batch_size: int, training: dict[str, Any] | None = None) -> None:
    """Twenty steps with every sample's noise its own; the losses and the weights."""
    run = toy_run(method, out, train_batch_size=batch_size, **(training or {}))
    with toy_family():
        runtime = build_run(own_folder(out), run)
        with GlobalDraws(runtime.method, batch_size):
            runtime.train()
    save(out / "weights.pt", weights(runtime.method))


@worker
def runs(out: Path, *, runs: dict[str, dict[str, Any]], fixed: dict[str, int] | None = None) -> None:
    """Builds and trains each run in turn; per run: what it started and ended with, in `<out>/<name>.pt`.

    Args:
        fixed: batches are samples of a fixed set, dealt out alike for every number of processes; by name their batch size.
    """
    for name, run in runs.items():
        with toy_family():
            runtime = build_run(own_folder(out / name), run)
            seen = described(runtime.method)
            if fixed and name in fixed:
                runtime = replace(runtime, dataloader=FixedBatches(fixed[name]))
                with GlobalDraws(runtime.method, fixed[name]):
                    runtime.train()
            else:
                runtime.train()
            seen["trained"] = weights(runtime.method)
            seen["graphs"] = compiled_graphs()
            save(out / f"{name}.pt", seen)


def compiled_graphs() -> int:
    """How many graphs torch.compile has made in this process so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@worker
def two_networks(
    out: Path,
    *,
    method: str,
    batch_size: int,
    wrong: Sequence[str] = (),
    training: dict[str, Any] | None = None,
    of_wan: dict[str, Any] | None = None,
) -> None:
    """Trains the family `two`, or a run of Wan: its losses, weights and moved networks.

    Args:
        of_wan: the run, without what belongs to its processes.
        wrong: `range per rank`: each draws its own; `unchecked`: nobody compares the ranges of calls.
    """

    def own(rng: RandomStreams, name: str) -> torch.Generator:
        return rng.local(f"{name} of rank {context.rank()}")

    with two_networks_world(), pytest.MonkeyPatch.context() as patch:
        if "range per rank" in wrong:
            shared = RandomStreams.shared
            patch.setattr(
                RandomStreams, "shared", lambda rng, name: (shared if name == "exit_step" else own)(rng, name)
            )
        if "unchecked" in wrong:
            patch.setattr(routing, "_check_range", lambda *_: None)
        run = run_of(method, out, train_batch_size=batch_size, **(training or {}))
        if of_wan is not None:
            run = {**run, **of_wan, "training": run["training"] | of_wan["training"] | (training or {})}
        runtime = build_run(own_folder(out), run)
        observed = Observed(runtime, batch_size)
    save(out / "weights.pt", weights(runtime.method))
    save(out / "moved.pt", observed.moved)


@worker
def accumulation(out: Path) -> None:
    """Four steps of three rounds with gradients reduced in the last one and in all: weights and reductions."""
    seen = {}
    for every_round in (False, True):
        folder = out / str(every_round)
        options = {"max_train_steps": 4, "gradient_accumulation_steps": 3, "sync_gradients_every_round": every_round}
        with toy_family():
            runtime = build_run(own_folder(folder), toy_run("finetune", folder, **options))
            with counted_reductions() as count:
                runtime.train()
        seen[every_round] = {"weights": weights(runtime.method), "reductions": len(count)}
    save(out / "seen.pt", seen)


@contextmanager
def counted_reductions() -> Iterator[list[int]]:
    """Inside, the list grows by one with every reduction of gradients."""
    count: list[int] = []
    name = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
    original = getattr(dist, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        count.append(1)
        return original(*args, **kwargs)

    setattr(dist, name, counted)
    try:
        yield count
    finally:
        setattr(dist, name, original)


@worker
def gathered(out: Path, *, run: dict[str, Any]) -> None:
    """In which dtypes the parameters of a block are while it computes, and of what they are outside of that."""
    runtime = build_run(own_folder(out), run)
    block = runtime.method.bundle["student"].modules["transformer"].blocks[0]
    inside: dict[str, str] = {}
    for name, part in block.named_modules():
        if not list(part.children()):
            part.register_forward_pre_hook(
                lambda part, args, name=name: inside.update(
                    {f"{name}.{key}": str(p.dtype) for key, p in part.named_parameters()}
                )
            )
    runtime.train()
    outside = {name: str(p.dtype) for name, p in block.named_parameters()}
    save(out / "seen.pt", {"inside": inside, "outside": outside})


@worker
def placed(out: Path, *, run: dict[str, Any]) -> None:
    """The whole weights of every role, as the run begins with them."""
    save(out / "weights.pt", weights(build_run(own_folder(out), run).method))


@worker
def tangents(out: Path, *, runs: dict[str, dict[str, Any]]) -> None:
    """The derivative of each run's student along a fixed direction, and a step's gradients after it."""
    seen = {}
    for name, run in runs.items():
        runtime = build_run(own_folder(out / name), run)
        method = runtime.method
        method.adapter.on_train_start()
        student, batch = method.bundle["student"], method.prepare_batch(FixedBatches.of(range(2)))
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
        where = method.adapter.add_noise(batch.latents, noise, t := torch.tensor([900.0, 300.0])), t

        def predict(x: torch.Tensor, t: torch.Tensor, student: Any = student, batch: Any = batch) -> torch.Tensor:
            out: torch.Tensor = method.adapter.predict_noise(student, x, t, batch, conditional=True)  # noqa: B023
            return out

        value, tangent = directional_derivative(predict, where, (noise - batch.latents, torch.full_like(t, 1000)))
        method.adapter.backward((predict(*where).float() ** 2).mean(), None)
        gradients = {key: full(p.grad) for key, p in student.named_parameters() if p.grad is not None}
        seen[name] = {"value": value, "tangent": tangent, "gradients": gradients}
    save(out / "tangents.pt", seen)


@worker
def resumable(out: Path, *, runs: dict[str, dict[str, Any]]) -> None:
    """Trains each run to its end, from `resume_from_checkpoint` where it says so.

    Per run and rank, in `<out>/<name>-<rank>.pt`: state after loading and at the end, and the samples that were used.
    """
    for name, run in runs.items():
        runtime = build_run(own_folder(out / name), run)
        seen: dict[str, Any] = {}
        if run["training"].get("resume_from_checkpoint"):
            runtime.callbacks.hook.train_start(method=runtime.method, start_step=runtime.start_step)
            runtime.checkpoint_manager.attach(runtime.method, runtime.callbacks, runtime.dataloader)
            seen["resumed"] = state_of(runtime)
        recorded = Recorded(runtime.dataloader)
        replace(runtime, dataloader=recorded).train()
        seen |= {"end": state_of(runtime), "ids": recorded.ids, "start_step": runtime.start_step}
        out.mkdir(parents=True, exist_ok=True)
        torch.save(seen, out / f"{name}-{context.rank()}.pt")


@worker
def shares(out: Path, *, run: dict[str, Any]) -> None:
    """Trains, and leaves the bytes of each kind of each role that this rank holds, in `<out>/<rank>.pt`."""
    runtime = build_run(own_folder(out), run)
    gradients: dict[str, int] = {}
    step = runtime.method.optimizers_schedulers_step

    def noting(iteration: int) -> None:
        for handle in runtime.method.bundle:
            gradients[handle.name] = local_bytes(p.grad for _, p in handle.named_parameters() if p.grad is not None)
        step(iteration)

    runtime.method.optimizers_schedulers_step = noting
    runtime.train()
    shadows = runtime.callbacks.state_dict()["ema"]["shadow"]
    seen = {}
    for handle in runtime.method.bundle:
        states = [state for optimizer in handle.optimizers.values() for state in optimizer.state.values()]
        buffers = [buffer for module in handle.modules.values() for buffer in module.buffers()]
        seen[handle.name] = {
            "weights": local_bytes([*(p for _, p in handle.named_parameters()), *buffers]),
            "gradients": gradients[handle.name],
            "optimizer": local_bytes(value for state in states for value in state.values()),
            "ema": local_bytes(t for named in shadows.get(handle.name, {}).values() for t in named.values()),
        }
    out.mkdir(parents=True, exist_ok=True)
    torch.save(seen, out / f"{context.rank()}.pt")


def local_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of this rank's shards."""
    return sum((tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in tensors)


@worker
def spoiled(out: Path, *, fused: bool) -> None:
    """Five steps of dmd2 in which rank 1's gradient is not finite at the third, with or without a fused optimizer."""
    options: dict[str, Any] = {"max_train_steps": 5, "max_grad_norm": 1.0}
    run = toy_run("dmd2", out, **options) | {"callbacks": {"ema": {"decay": 0.5}}}
    with toy_family(), made_with(torch.optim.AdamW, fused=fused):
        runtime = build_run(own_folder(out), run)
        backward, steps = runtime.method.backward, iter(range(1, 100))

        def spoiling(*args: Any, **kwargs: Any) -> None:
            backward(*args, **kwargs)
            if runtime.method.bundle["critic"].trainable_parameters()[0].grad is not None and next(steps) == 3:
                for parameter in runtime.method.bundle["critic"].trainable_parameters():
                    if context.rank() == 1:
                        parameter.grad.to_local().fill_(math.nan)

        runtime.method.backward = spoiling
        runtime.train()
    save(out / "state.pt", {**state_of(runtime), "schedules": schedules_of(runtime.method)})


def schedules_of(method: Any) -> dict[str, int]:
    """Updates that each role's learning-rate schedule has seen."""
    return {h.name: s.last_epoch for h in method.bundle for s in h.lr_schedulers.values()}


@contextmanager
def made_with(kind: Any, **options: Any) -> Iterator[None]:
    """Inside, every instance of a class is made with these options, whatever its maker says."""
    original = kind.__init__
    kind.__init__ = lambda self, *args, **given: original(self, *args, **{**given, **options})
    try:
        yield
    finally:
        kind.__init__ = original


@worker
def memory(out: Path, *, path: str) -> None:
    """Loads a Wan transformer in parts; how much host memory that took at most, and what came of it."""
    from diffusers.models.transformers.transformer_wan import WanTransformerBlock

    from fastvideo_core.config.training import TrainingArgs
    from fastvideo_core.contracts.roles import RoleHandle, RoleManager
    from fastvideo_core.placing.materialise import materialise
    from fastvideo_core.placing.shard import shard_roles
    from fastvideo_diffusers.loading import stored_weights
    from fastvideo_wan.loading import meta_transformer

    network = meta_transformer(path, dtype=torch.float32)
    handle = RoleHandle("student", {"transformer": network}, trainable=True, block_classes=(WanTransformerBlock,))
    handle.weights = stored_weights(path, "transformer")
    shard_roles(RoleManager({"student": handle}), TrainingArgs(output_dir=str(out), max_train_steps=1))
    before = peak_memory(reset=True)
    materialise(handle)
    local = [p.to_local() if isinstance(p, DTensor) else p for p in network.parameters()]
    seen = {
        "peak": peak_memory() - before,
        "held": sum(p.numel() * p.element_size() for p in local),
        "constants": {name: [v.item() for v in full(p).aminmax()] for name, p in network.named_parameters()},
    }
    out.mkdir(parents=True, exist_ok=True)
    torch.save(seen, out / f"{context.rank()}.pt")


def peak_memory(*, reset: bool = False) -> int:
    """The most host memory that this process has held, in bytes; of the time from now on with `reset`."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def state_of(runtime: Any) -> dict[str, Any]:
    moments = {}
    for handle in runtime.method.bundle:
        names = {id(parameter): name for name, parameter in handle.named_parameters()}
        for optimizer in handle.optimizers.values():
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    moments[f"{handle.name}.{names[id(parameter)]}.{key}"] = full(value)
    ema = runtime.callbacks.state_dict().get("ema", {}).get("shadow", {})
    averages = {
        f"{r}.{n}": full(t) for r, modules in ema.items() for names in modules.values() for n, t in names.items()
    }
    return {
        "weights": weights(runtime.method),
        "moments": moments,
        "ema": averages,
        "rng": runtime.method.rng.state_dict(),
    }


class Recorded:
    """A resumable loader that notes the samples that are used."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.ids: list[list[str]] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader:
            self.ids.append([info["id"] for info in batch["info"]])
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)


def described(method: Any) -> dict[str, Any]:
    """Weights, dtypes, buffers, how parameters are placed, and how many bytes of each role this rank holds."""
    named = {f"{h.name}.{n}": p for h in method.bundle for n, p in h.named_parameters()}
    held: dict[str, int] = {}
    for handle in method.bundle:
        local = (p.to_local() if isinstance(p, DTensor) else p for _, p in handle.named_parameters())
        held[handle.name] = sum(p.numel() * p.element_size() for p in local)
    return {
        "start": weights(method),
        "dtypes": {name: str(p.dtype) for name, p in named.items()},
        "requires_grad": {name for name, p in named.items() if p.requires_grad},
        "meshes": {name: tuple(p.device_mesh.shape) for name, p in named.items() if isinstance(p, DTensor)},
        "sharded": {name for name, p in named.items() if isinstance(p, DTensor)},
        "buffers": {
            f"{h.name}.{m}.{n}": full(b)
            for h in method.bundle
            for m, module in h.modules.items()
            for n, b in module.named_buffers()
        },
        "held": held,
    }


class FixedBatches:
    """Samples for the tiny Wan that are a function of their number, dealt out to the ranks in turn."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first = context.rank() * self._batch_size
        while True:
            yield self.of(range(first, first + self._batch_size))
            first += context.world_size() * self._batch_size

    @classmethod
    def of(cls, numbers: Sequence[int]) -> dict[str, Any]:
        """The batch of these samples."""
        samples = [cls._sample(number) for number in numbers]
        return {
            "vae_latent": torch.stack([latent for latent, _ in samples]),
            "text_embedding": torch.stack([text for _, text in samples]),
            "text_embedding_length": torch.full((len(samples),), 5),
            "vae_latent_normalised": True,
        }

    @staticmethod
    def _sample(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(number)
        return torch.randn(16, 3, 4, 4, generator=generator), torch.randn(5, 32, generator=generator)


@worker
def fails_on_rank_1(out: Path) -> None:
    """The other rank leaves its process id, and would wait for a minute."""
    if context.rank() == 1:
        raise ValueError("it broke")
    (out / "pid").write_text(str(os.getpid()))
    time.sleep(60)


def own_folder(out: Path) -> Path:
    """Where this rank writes its run.yaml."""
    folder = out.parent / f"{out.name}-rank-{context.rank()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save(path: Path, content: Any) -> None:
    """Written by the main process."""
    if context.is_main_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    context.barrier()


def work(name: str, out: Path, options: dict[str, Any]) -> None:
    """What every rank does, in its group of processes."""
    WORKERS[name](out, **options)


@worker
def metered(out: Path, *, runs: dict[str, dict[str, Any]]) -> None:
    """What rank 0 sends in two steps of the trainer, and what it holds afterwards, by run."""
    for name, run in runs.items():
        runtime, meter = build_run(own_folder(out / name), run), Meter()

        def entering(original: Callable[..., Any], meter: Any = meter) -> Callable[..., Any]:
            def call(*given: Any) -> Any:
                with meter:
                    return original(*given)

            return call

        with pytest.MonkeyPatch.context() as patch:
            for step in ("_accumulate_gradients", "_update"):
                patch.setattr(DistillTrainer, step, entering(getattr(DistillTrainer, step)))
            runtime.train()
        if context.is_main_process():
            total = Cost()
            for cost in meter.costs.values():
                total.add(cost)
            sent = {f"{key.name} of {list(key.ranks)}": entry for key, entry in total.sent.items()}
            held = {handle.name: held_of(handle, 0) for handle in runtime.method.bundle}
            found = {"sent": sent, "held": {role: [one.parameters, one.optimizer] for role, one in held.items()}}
            (out / f"{name}.json").write_text(json.dumps(found))
