"""Low-rank adapters on a role's linear layers, through peft."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.contracts.roles import RoleHandle, WeightSource, is_lora_parameter
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.weights.parameters import base_name, clean_name, local_part, own_slice

_SHOWN = 12


def add_lora(handle: RoleHandle, lora: LoraConfig) -> None:
    """Puts adapters into the handle's networks; to be done before sharding. Their values are set by `initialise_lora`.

    They are float32 whatever the networks are, and on the networks' device (meta too). Raises ConfigError where a target names
    no linear layer.
    """
    chosen = _chosen_layers(handle, lora.targets)
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    for name, module in handle.modules.items():
        if not chosen.get(name):
            continue
        alpha: Any = lora.rank if lora.alpha is None else lora.alpha
        config = PeftConfig(r=lora.rank, lora_alpha=alpha, target_modules=chosen[name], init_lora_weights=False)
        # on meta first: peft would draw values from the global generator, in the base weights' dtype
        own = handle.name if handle.borrows else "default"
        vars(module).pop("peft_config", None)  # of a role before, of which peft would warn
        inject_adapter_in_model(config, module, own, low_cpu_mem_usage=True)
        device = next(p.device for key, p in module.named_parameters() if not is_lora_parameter(key))
        for key, part in module.named_modules():
            weight = f"{key}.weight"
            if hasattr(part, "cast_input_dtype_enabled"):
                part.cast_input_dtype_enabled = False
            if is_lora_parameter(weight) and handle.owns(weight) and isinstance(part, nn.Linear):
                part.__class__ = _Adapter
                part.weight = nn.Parameter(torch.empty_like(part.weight, dtype=torch.float32, device=device))
    if handle.base is not None:
        handle.base.find_layers()
    handle.lora = lora
    handle.set_trainable()


class _Adapter(nn.Linear):
    """One of a layer's two products: kept in float32, computed in the dtype of what the layer is given, as on a float32 layer."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.to(x.dtype))


@torch.no_grad()
def initialise_lora(handle: RoleHandle, seed: int, initial: Mapping[str, Tensor] = {}) -> None:
    """The values of `initial`, by clean names; else A uniform in +-1/sqrt(inputs), B zero, of no effect (Hu et al. 2021).

    Drawn ones depend on the seed and the names alone, not on how the network is sharded; a copy's are those of its original.
    """
    role = handle.copy_of or handle.name
    for name, parameter in handle.named_parameters():
        if not is_lora_parameter(name):
            continue
        value = initial.get(clean_name(name), torch.zeros(parameter.shape))
        if ".lora_A." in name and clean_name(name) not in initial:
            generator = torch.Generator().manual_seed(stream_seed(seed, f"lora/{role}/{clean_name(name)}"))
            bound = 1 / math.sqrt(parameter.shape[1])
            value.uniform_(-bound, bound, generator=generator)
        local_part(parameter).copy_(value[own_slice(parameter) or slice(None)])


class MergedWeights:
    """A WeightSource: the weights [out, in] of another source with stored adapters added, W + scale * B A.

    `adapters` are tensors by module and name: A [rank, in] and B [out, rank] of each layer.
    """

    def __init__(self, below: WeightSource, adapters: Mapping[str, Mapping[str, Tensor]], scale: float) -> None:
        self._below, self._adapters, self._scale = below, adapters, scale

    def tensor_names(self, module: str) -> Sequence[str]:
        return self._below.tensor_names(module)

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        weight, adapters = self._below.read(module, name, rows), self._adapters.get(module, {})
        layer = name.removesuffix(".weight")
        if (down := adapters.get(f"{layer}.lora_A.default.weight")) is None:
            return weight
        up = adapters[f"{layer}.lora_B.default.weight"]
        down, up = (part.to(weight.device, torch.float32) for part in (down, up if rows is None else up[rows]))
        return weight.float() + self._scale * (up @ down)


def _chosen_layers(handle: RoleHandle, targets: tuple[str, ...] | None) -> dict[str, list[str]]:
    """By module that may train, linear layers whose names end in a target; all of the blocks where there are no targets."""
    linear: list[str] = []
    chosen: dict[str, list[str]] = {}
    for key, module in handle.modules.items():
        if not handle.may_train(key):
            continue
        parts = ((base_name(f"{name}.")[:-1], part) for name, part in module.named_modules() if ".lora_" not in name)
        layers = [name for name, part in parts if isinstance(part, nn.Linear)]
        blocks = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, handle.block_classes))
        ends = tuple("" if target == "all-linear" else f".{target}" for target in targets or ())
        chosen[key] = [n for n in layers if (n.startswith(blocks) if targets is None else f".{n}".endswith(ends))]
        linear += layers
    where, known = f"roles.{handle.name}.lora", sorted(set(map(_end, linear)))
    allowed = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    problems = [
        Problem(f"{target!r} is the end of no linear layer's name", f"{where}.targets", allowed)
        for target in targets or ()
        if target != "all-linear" and not any(f".{name}".endswith(f".{target}") for name in linear)
    ]
    if not problems and not any(chosen.values()):
        problems = [Problem("the network's blocks have no linear layers", where, allowed, "name targets")]
    if problems:
        raise ConfigError(problems)
    return chosen


def _end(name: str) -> str:
    """The part of a layer's name after the last number that counts blocks: `blocks.3.attn1.to_out.0` gives to_out.0."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]
