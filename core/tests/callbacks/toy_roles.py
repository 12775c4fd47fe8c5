"""A method with a student and a critic, each one weight vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastvideo_core import PluginConfig, RoleConfig, RunConfig, TrainingArgs
from fastvideo_core.config.run import RecipeConfig
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, RoleManager


class Net(nn.Module):
    def __init__(self, values: list[float], dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, dtype=dtype))


def toy_config(callbacks: dict[str, PluginConfig] | None = None) -> RunConfig:
    roles = {name: RoleConfig(path="toy", trainable=name != "teacher") for name in ("student", "critic", "teacher")}
    return RunConfig(
        recipe=RecipeConfig(family="toy", method="toy"),
        roles=roles,
        training=TrainingArgs(output_dir="unused", max_train_steps=1),
        pipeline_config=PluginConfig(),
        method_config=PluginConfig(),
        callbacks=callbacks or {},
        source="run.yaml",
    )


def toy_method(dtype: torch.dtype = torch.float32) -> DistillMethod:
    handles = {
        name: RoleHandle(name, {"net": Net([1.0, 2.0], dtype)}, "toy", trainable=name != "teacher")
        for name in ("student", "critic", "teacher")
    }
    method = DistillMethod(toy_config(), RoleManager(handles), adapter=None)
    for name in ("student", "critic"):
        handles[name].optimizers["sgd"] = torch.optim.SGD(handles[name].trainable_parameters(), lr=1.0)
    return method


def optimizers(method: DistillMethod, *roles: str) -> list[Any]:
    return [method.bundle[role].optimizers["sgd"] for role in roles]
