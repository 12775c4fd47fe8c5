"""Frozen linear layers whose weights take less memory, and the source that brings weights into their form when they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.functional import linear

from fastvideo_core.contracts.roles import WeightSource
from fastvideo_core.distributed import context

FP8 = torch.float8_e4m3fn
_NF4_BLOCK = 64  # weights of one scale


class Form(NamedTuple):
    """How a weight [out, in] is held.

    Attributes:
        pack: from a float32 weight to the tensors that stand for it, by the names of the layer's parameters.
        unpack: from these, the dtype and the shape to the weight.
    """

    pack: Callable[[Tensor], dict[str, Tensor]]
    unpack: Callable[..., Tensor]


def _pack_fp8(weight: Tensor) -> dict[str, Tensor]:
    # Powers of two: what is held is then the same number in bfloat16 as in float32. They cost no precision but of weights
    # below 2^-14 of their row's largest.
    most = weight.abs().amax(1, keepdim=True) / torch.finfo(FP8).max
    mantissa, exponent = torch.frexp(torch.where(most > 0, most, 1))
    scale = torch.ldexp(torch.ones_like(most), exponent - (mantissa == 0.5).to(exponent))
    return {"weight": (weight / scale).to(FP8).view(torch.uint8), "weight_scale": scale}


def _unpack_fp8(weight: Tensor, scale: Tensor, *, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    return weight.view(FP8).to(dtype).mul_(scale.to(dtype))


def _bitsandbytes() -> Any:
    """Not asked by estimates, which know shapes alone: `check` says what would fit where it is not installed, too."""
    return import_module("bitsandbytes.functional")


def _pack_int8(weight: Tensor) -> dict[str, Tensor]:
    if weight.is_meta:
        return {"weight": torch.empty_like(weight, dtype=torch.int8), "weight_scale": weight.new_empty(len(weight))}
    # on a GPU it takes nothing but float16
    held, scale, _ = _bitsandbytes().int8_vectorwise_quant(weight.cpu())
    return {"weight": held, "weight_scale": scale}


def _unpack_int8(weight: Tensor, scale: Tensor, *, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    if isinstance(weight, FakeTensor):
        return scale.new_empty(shape, dtype=dtype)
    whole: Tensor = _bitsandbytes().int8_vectorwise_dequant(weight, scale)
    return whole.to(dtype)


def _pack_nf4(weight: Tensor) -> dict[str, Tensor]:
    if weight.is_meta:
        held = weight.new_empty((weight.numel() + 1) // 2, 1, dtype=torch.uint8)
        return {"weight": held, "weight_scale": weight.new_empty(-(-weight.numel() // _NF4_BLOCK))}
    held, state = _bitsandbytes().quantize_4bit(weight.contiguous(), blocksize=_NF4_BLOCK, quant_type="nf4")
    return {"weight": held, "weight_scale": state.absmax}


def _unpack_nf4(weight: Tensor, scale: Tensor, *, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    if isinstance(weight, FakeTensor):
        return scale.new_empty(shape, dtype=dtype)
    library = _bitsandbytes()
    state = library.QuantState(scale, torch.Size(shape), None, _NF4_BLOCK, "nf4", dtype)
    whole: Tensor = library.dequantize_4bit(weight, state)
    return whole


FORMS: Mapping[str, Form] = {
    "fp8": Form(_pack_fp8, _unpack_fp8),
    "int8": Form(_pack_int8, _unpack_int8),
    "nf4": Form(_pack_nf4, _unpack_nf4),
}
"""By what `roles.X.base_precision` says."""
OF_BITSANDBYTES = ("int8", "nf4")
"""Those that need bitsandbytes, and whole weights."""
PARTS = ("weight", "weight_scale")
"""What a layer holds of its weight."""


class QuantisedLinear(nn.Linear):
    """A frozen linear layer that holds its weight in another form, and computes with it in the dtype of what it is given.

    Args:
        layer: what it stands for; its weight may be on meta.
        form: how the weight is held.
    """

    def __init__(self, layer: nn.Linear, form: Form) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self._unpack = form.unpack
        for name, tensor in form.pack(layer.weight.detach().float()).items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        unpack = partial(self._unpack, dtype=dtype, shape=(self.out_features, self.in_features))
        if torch.compiler.is_compiling():  # which does not keep what it can make again
            return linear(x.to(dtype), unpack(self.weight, self.weight_scale), self.bias)
        out: Tensor = _Product.apply(x.to(dtype), self.bias, unpack, self.weight, self.weight_scale)  # type: ignore[no-untyped-call]  # torch types it not
        return out


class _Product(torch.autograd.Function):
    """x W^T + b, which keeps what W is made of, not W, until the way back."""

    @staticmethod
    def forward(x: Tensor, bias: Tensor | None, unpack: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        return linear(x, unpack(*parts), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, ctx.unpack, *parts = inputs
        ctx.save_for_backward(*parts)
        ctx.save_for_forward(*parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient @ ctx.unpack(*ctx.saved_tensors), *(None for _ in ctx.needs_input_grad[1:])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return linear(tangent, ctx.unpack(*ctx.saved_tensors))


class QuantisedWeights:
    """A WeightSource: the weights of another one, those of some layers in the form in which `QuantisedLinear` holds them.

    Args:
        below: the other one.
        layers: by module, the names of those layers.
        form: how their weights are held.
    """

    def __init__(self, below: WeightSource, layers: Mapping[str, Collection[str]], form: Form) -> None:
        self._below, self._layers, self._form = below, layers, form
        self._last: tuple[Any, dict[str, Tensor]] = (None, {})

    def tensor_names(self, module: str) -> Sequence[str]:
        """Names of the tensors that the layers hold, and of the others."""
        return [*self._below.tensor_names(module), *(f"{layer}.{PARTS[1]}" for layer in self._layers[module])]

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        """One tensor, or some of its rows, packed where the run computes; rows of one are made of the same rows of the weight."""
        layer, _, part = name.rpartition(".")
        if layer not in self._layers[module] or part not in PARTS:
            return self._below.read(module, name, rows)
        wanted = (module, layer, rows and (rows.start, rows.stop))
        if self._last[0] != wanted:
            weight = self._below.read(module, f"{layer}.weight", rows)
            self._last = wanted, self._form.pack(weight.to(context.device(), torch.float32))
        return self._last[1].pop(part)


def quantise(
    networks: Mapping[str, nn.Module], block_classes: tuple[type[nn.Module], ...], form: Form
) -> Callable[[WeightSource], WeightSource]:
    """Replaces the linear layers inside the networks' blocks; gives what brings weights into their form."""
    layers: dict[str, list[str]] = {}
    for module, network in networks.items():
        parts = list(network.named_modules())
        blocks = tuple(f"{name}." for name, part in parts if isinstance(part, block_classes))
        linears = {name: part for name, part in parts if type(part) is nn.Linear and name.startswith(blocks)}
        for name, part in linears.items():
            network.set_submodule(name, QuantisedLinear(part, form))
        layers[module] = list(linears)
    return partial(QuantisedWeights, layers=layers, form=form)
