"""A small run with everything that a checkpoint must keep: three roles, two optimizers, EMA, data, random streams."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from fastvideo_core import PluginConfig, RoleConfig, RunConfig, TrainingArgs
from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.callbacks.ema import EMACallback
from fastvideo_core.callbacks.hooks import Callback
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.checkpoint.storage import choose
from fastvideo_core.config.run import RecipeConfig
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, RoleManager

from ..saving import manager_of


class ToyAdapter:
    """Has a generator of its own, which belongs into the checkpoint."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def get_rng_generators(self) -> dict[str, torch.Generator]:
        return {"augmentation": self.generator}

    def prepare_batch(self, raw_batch: Any, **_: Any) -> Tensor:
        return raw_batch


class ToyLoader:
    """Counts from 0; resumable."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            self.position += 1
            yield torch.full((2, 3), float(self.position))

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class ToyMethod(DistillMethod):
    """The critic learns every step, the student every second one and with dropout."""

    def __init__(self, cfg: RunConfig, bundle: RoleManager, adapter: Any) -> None:
        super().__init__(cfg, bundle, adapter)
        self.history: list[float] = []
        student, critic = bundle["student"], bundle["critic"]
        first, *others = student.trainable_parameters()
        student.optimizers["adamw"] = torch.optim.AdamW(
            [{"params": [first], "weight_decay": 0.1}, {"params": others}], lr=1e-2, betas=(0.0, 0.99)
        )
        critic.optimizers["adam"] = torch.optim.Adam(critic.trainable_parameters(), lr=1e-2)
        for handle in (student, critic):
            for name, optimizer in handle.optimizers.items():
                handle.lr_schedulers[name] = LambdaLR(optimizer, lambda update: 1 / (1 + update))

    def due_roles(self, iteration: int) -> list[RoleHandle]:
        return [self.bundle["critic"]] + ([self.bundle["student"]] if iteration % 2 == 0 else [])

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> Any:
        x = batch + torch.randn(batch.shape, generator=self.rng.local("noise"))
        x = x + torch.randn(batch.shape, generator=self.adapter.generator)
        loss = torch.zeros(())
        for handle in self.due_roles(iteration):
            loss = loss + handle.modules["net"](x).square().mean()
        self.history.append(loss.item())
        return {"total_loss": loss}, {}, {}

    def checkpoint_state(self) -> dict[str, Any]:
        return {"history": list(self.history)}

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        self.history = state["history"]


class Counter(Callback):
    """A callback with state."""

    def __init__(self) -> None:
        super().__init__(PluginConfig())
        self.state: dict[str, Any] = {"seen": {7: (1, 2.5)}, "tensor": torch.arange(3)}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


@dataclass
class ToyRun:
    method: ToyMethod
    callbacks: CallbackManager
    loader: ToyLoader
    manager: CheckpointManager

    def steps(self, first: int, last: int) -> ToyRun:
        batches = iter(self.loader)
        for step in range(first, last + 1):
            loss, outputs, _ = self.method.single_train_step(next(batches), step)
            self.method.backward(loss, outputs)
            optimizers = self.method.get_optimizers(step)
            self.method.optimizers_schedulers_step(step)
            self.callbacks.hook.after_optimizer_step(method=self.method, step=step, optimizers=optimizers)
            self.method.optimizers_zero_grad(step)
        return self

    def load(self, path: Path) -> int:
        """Goes on from a checkpoint, as a run does; its step."""
        self.manager.resumed = choose(path, self.manager.output_dir)
        self.manager.attach(self.method, self.callbacks, self.loader)
        return self.manager.resumed.step

    def fingerprint(self) -> dict[str, Any]:
        """All state, for bitwise comparison."""
        return {**self.manager._run.collect(), "rng": self.method.rng.state_dict()}


def network(width: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 1))


def config(output_dir: Path) -> RunConfig:
    return RunConfig(
        recipe=RecipeConfig(family="toy", method="toy"),
        roles={
            "student": RoleConfig(path="toy", trainable=True),
            "teacher": RoleConfig(path="toy", trainable=False),
            "critic": RoleConfig(path="toy", trainable=True),
        },
        training=TrainingArgs(output_dir=str(output_dir), max_train_steps=100),
        pipeline_config=PluginConfig(),
        method_config=PluginConfig(),
        callbacks={},
        source="run.yaml",
    )


def toy_run(
    output_dir: Path,
    *,
    every: int = 1,
    keep: int = 0,
    width: int = 3,
    roles: tuple[str, ...] = ("student", "teacher", "critic"),
    callbacks: dict[str, Callback] | None = None,
    ema_start: int = 0,
    start_step: int = 0,
    seed: int = 0,
    networks: dict[str, nn.Module] | None = None,
) -> ToyRun:
    cfg = config(output_dir)
    handles = {
        name: RoleHandle(
            name, {"net": (networks or {}).get(name) or network(width, seed + i)}, "toy", trainable=name != "teacher"
        )
        for i, name in enumerate(roles)
    }
    method = ToyMethod(cfg, RoleManager(handles), ToyAdapter())
    if callbacks is None:
        callbacks = {"ema": EMACallback(EMAConfig(decay=0.9, start_step=ema_start)), "counter": Counter()}
    manager = manager_of(cfg, every=every, keep=keep)
    run = ToyRun(method, CallbackManager(callbacks), ToyLoader(), manager)
    run.callbacks.hook.train_start(method=method, start_step=start_step)
    manager.attach(method, run.callbacks, run.loader)
    return run


def sign(folder: Path, content: bytes) -> None:
    """Another state.json, with the right sum."""
    (folder / "state.json").write_bytes(content)
    (folder / "state.json.sum").write_text(f'{{"size":{len(content)},"crc32":{zlib.crc32(content)}}}')


def assert_same(one: Any, other: Any, path: str = "state") -> None:
    """Equal structure, types, dtypes and bits."""
    assert type(one) is type(other), path
    if isinstance(one, Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), path
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{path}[{index}]")
    else:
        assert one == other or (one != one and other != other), path
