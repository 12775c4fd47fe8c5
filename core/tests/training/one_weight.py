"""A method of one or two weights, whose training can be computed in the head, and a callback that watches it."""

from __future__ import annotations

import json

import torch
from torch import nn

from fastvideo_core import PluginConfig, RoleConfig, RunConfig, TrainingArgs
from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.config.run import RecipeConfig
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.training.trainer import DistillTrainer

from ..saving import manager_of


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))


class Linear(DistillMethod):
    """One phase: loss = batch * w of the student; SGD with rate 1."""

    def __init__(self, cfg, roles=("student",)):
        handles = {name: RoleHandle(name, {"net": Weight()}, "toy", trainable=True) for name in roles}
        super().__init__(cfg, RoleManager(handles), adapter=None)
        for handle in handles.values():
            handle.optimizers["sgd"] = torch.optim.SGD(handle.trainable_parameters(), lr=1.0)
        self.seen = []
        self.validated = []

    def weight(self, role="student"):
        return self.bundle[role].modules["net"].w

    def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
        self.seen.append((iteration, batch))
        return {"total_loss": (batch * self.weight()).sum()}, {}, {"batch": batch}

    def log_validation(self, iteration):
        self.validated.append(iteration)


class Phases(Linear):
    """Two phases, as a generator: the critic's loss is made after the student's was back-propagated."""

    def __init__(self, cfg):
        super().__init__(cfg, roles=("student", "critic"))
        self.gradient_before_the_second_phase = []

    def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
        student = (batch * self.weight("student")).sum()
        yield {"total_loss": student, "student_loss": student.detach()}, {}, {}
        self.gradient_before_the_second_phase.append(self.weight("student").grad.item())
        critic = (10 * batch * self.weight("critic")).sum()
        yield {"total_loss": critic, "critic_loss": critic.detach()}, {}, {}


class Watch(Callback):
    """Writes down every hook, and the gradients that reach the optimizer."""

    def __init__(self):
        super().__init__(PluginConfig())
        self.calls = []
        self.errors = []
        self.gradients = []
        self.batches = []

    def of(self, hook):
        return [step for name, step in self.calls if name == hook]

    @hookimpl
    def train_start(self, start_step):
        self.calls.append(("train_start", start_step))

    @hookimpl
    def before_round(self, method, step, batch):
        self.calls.append(("before_round", step))
        self.batches.append((len(getattr(method, "seen", ())), batch))  # with how many were trained on before

    @hookimpl
    def before_optimizer_step(self, method, step):
        self.gradients.append({h.name: [p.grad for p in h.trainable_parameters()] for h in method.bundle})
        self.calls.append(("before_optimizer_step", step))

    @hookimpl
    def step_end(self, step):
        self.calls.append(("step_end", step))

    @hookimpl
    def validation_start(self, step):
        self.calls.append(("validation_start", step))

    @hookimpl
    def validation_end(self, step):
        self.calls.append(("validation_end", step))

    @hookimpl
    def train_end(self, step):
        self.calls.append(("train_end", step))

    @hookimpl
    def exception(self, step, error):
        self.calls.append(("exception", step))
        self.errors.append(error)


def config_of(folder, roles=None, **training):
    args = {"output_dir": str(folder), "max_train_steps": 100, "max_grad_norm": 0, **training}
    return RunConfig(
        recipe=RecipeConfig(family="toy", method="toy"),
        roles={
            name: RoleConfig(path="toy", trainable=True, **own)
            for name, own in (roles or {"student": {}, "critic": {}}).items()
        },
        training=TrainingArgs(**args),
        pipeline_config=PluginConfig(),
        method_config=PluginConfig(),
        callbacks={},
        source="run.yaml",
    )


def numbers(*values):
    return [torch.tensor(float(value)) for value in values]


def run(method, batches, steps, *, start=0, every=None):
    """Trains and gives what the callback saw; with `every`, checkpoints are written as well."""
    watch = Watch()
    callbacks = CallbackManager({"watch": watch})
    manager = None if every is None else manager_of(method.cfg, every=every)
    trainer = DistillTrainer(method.cfg.training, config={})
    trainer.run(method, batches, steps, start, checkpoint_manager=manager, callbacks=callbacks)
    return watch


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
