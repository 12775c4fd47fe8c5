"""Layers that hold their weights in another form compute, to the bit, what layers with the weights that they stand for do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import OwnWeights, RoleHandle, RoleManager
from fastvideo_core.placing.materialise import materialise
from fastvideo_core.placing.shard import on_host, shard_roles
from fastvideo_core.weights.lora import add_lora, initialise_lora
from fastvideo_diffusers import quantised
from fastvideo_diffusers.quantised import FORMS, OF_BITSANDBYTES, QuantisedLinear, quantise

FP8 = FORMS["fp8"]


class Block(nn.Module):
    """Two linear layers and a norm, of which no width is another's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(48, 160), nn.LayerNorm(160), nn.Linear(160, 48, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(torch.tanh(self.norm(self.first(x))))
        return out


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.blocks = nn.Linear(8, 48), nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in (self.enter, *self.blocks):
            x = block(x)
        return x


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def held(
    net: Net,
    form: str = "fp8",
    dtype: torch.dtype = torch.float32,
    lora: LoraConfig | None = None,
    away: TrainingArgs | None = None,
) -> RoleHandle:
    """The net with its blocks' weights in a form, read from the net's own; some `away` in host memory."""
    network = copy.deepcopy(net).to("meta", dtype)
    handle = RoleHandle("student", {"net": network}, trainable=lora is not None, block_classes=(Block,))
    handle.weights = quantise(handle.modules, (Block,), FORMS[form])(OwnWeights({"net": net}))
    return placed(handle, lora, away)


def meant(
    net: Net, form: str = "fp8", dtype: torch.dtype = torch.float32, lora: LoraConfig | None = None
) -> RoleHandle:
    """The net with the weights that the form stands for."""
    whole = copy.deepcopy(net)
    for part in whole.blocks.modules():
        if isinstance(part, nn.Linear):
            parts = FORMS[form].pack(part.weight.data).values()
            part.weight.data = FORMS[form].unpack(*parts, dtype=torch.float32, shape=part.weight.shape)
    return placed(
        RoleHandle("student", {"net": whole.to(dtype)}, trainable=lora is not None, block_classes=(Block,)), lora
    )


def placed(handle: RoleHandle, lora: LoraConfig | None, away: TrainingArgs | None = None) -> RoleHandle:
    if lora is not None:
        add_lora(handle, lora)
    handle.set_trainable()
    if away is not None:
        shard_roles(RoleManager({"student": handle}), away)
    materialise(handle, frozenset() if away is None else on_host(handle, "net", away))
    if lora is not None:
        initialise_lora(handle, 0)
        for name, parameter in handle.named_parameters():  # else no gradient reaches A
            if ".lora_B." in name:
                nn.init.ones_(parameter)
    return handle


def passed(handle: RoleHandle, dtype: torch.dtype, *, autocast: bool = False) -> dict[str, Tensor]:
    """Output and gradients of a call on [2, 3, 8]."""
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = handle.modules["net"](x)
    out.float().square().mean().backward()
    assert x.grad is not None
    found = {"out": out.detach(), "x": x.grad}
    return found | {name: p.grad for name, p in handle.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)], ids=str
)
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=3, alpha=6.0)], ids=["frozen", "lora"])
def test_fp8_is_to_the_bit_the_net_of_the_weights_it_stands_for(net, dtype, autocast, lora):
    one, other = (passed(make(net, "fp8", dtype, lora), dtype, autocast=autocast) for make in (held, meant))
    assert one.keys() == other.keys()
    assert len(one) == (2 if lora is None else 2 + 2 * 4)
    assert [name for name in one if one[name].dtype != other[name].dtype] == []
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("form", OF_BITSANDBYTES)
def test_int8_and_nf4_are_nearly_the_net_of_the_weights_they_stand_for(net, form):
    pytest.importorskip("bitsandbytes")
    lora = LoraConfig(rank=3, alpha=6.0)
    one, other = (passed(make(net, form, lora=lora), torch.float32) for make in (held, meant))
    assert one.keys() == other.keys()
    for name, value in other.items():
        assert (one[name] - value).norm() <= 1e-4 * value.norm(), name
    weight = net.blocks[0].first.weight.data
    off = FORMS[form].unpack(*FORMS[form].pack(weight).values(), dtype=weight.dtype, shape=weight.shape) - weight
    assert off.norm() <= {"int8": 0.01, "nf4": 0.11}[form] * weight.norm()


@pytest.mark.parametrize("form", FORMS)
def test_blocks_that_wait_in_host_memory_are_of_the_same_bits(net, form):
    """Where one process holds them as its shards: nf4's rows are not those of the weight."""
    if form in OF_BITSANDBYTES:
        pytest.importorskip("bitsandbytes")
    away = TrainingArgs(output_dir="out", max_train_steps=1, offload_blocks=1)
    wanted = passed(held(net, form), torch.float32)
    try:
        found = passed(held(net, form, away=away), torch.float32)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []


def test_every_row_has_a_scale_of_its_own_so_that_no_weight_is_off_by_more_than_a_sixteenth():
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-12, 6, 64)[:, None]
    weight[5] = 0
    parts = FP8.pack(weight)
    assert parts["weight"].dtype == torch.uint8
    assert torch.equal(parts["weight_scale"].log2(), parts["weight_scale"].log2().round())
    for dtype in (torch.float32, torch.bfloat16):
        off = (FP8.unpack(*parts.values(), dtype=dtype, shape=weight.shape).float() - weight).abs()
        smallest = weight.abs().amax(1, keepdim=True) * 2.0**-18  # half of what lies between two numbers near 0
        assert bool((off <= torch.maximum(weight.abs() / 16, smallest)).all())


def test_rows_of_what_is_held_are_made_of_the_same_rows_of_the_weight(net):
    source = quantise({"net": Net().to("meta")}, (Block,), FP8)(OwnWeights({"net": net}))
    whole = FP8.pack(net.blocks[1].first.weight.data)
    for rows in (slice(0, 90), slice(90, 160), slice(160, 160)):
        for part, tensor in whole.items():
            assert torch.equal(source.read("net", f"blocks.1.first.{part}", rows), tensor[rows])
    assert torch.equal(source.read("net", "enter.weight"), net.enter.weight)
    assert torch.equal(source.read("net", "blocks.1.first.bias"), net.blocks[1].first.bias)


@pytest.mark.parametrize(("form", "size"), [("fp8", 1), ("int8", 1), ("nf4", 0.5)])
def test_shapes_alone_need_no_library(net, form, size, monkeypatch):
    monkeypatch.setattr(quantised, "_bitsandbytes", None)
    network = copy.deepcopy(net).to("meta")
    quantise({"net": network}, (Block,), FORMS[form])
    assert network.blocks[0].first.weight.nbytes == size * 48 * 160
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert network.to_empty(device="cpu")(torch.empty(2, 3, 8)).shape == (2, 3, 48)


def test_layers_outside_of_blocks_norms_and_biases_stay_as_they_are(net):
    network = held(net, dtype=torch.bfloat16).modules["net"]
    kinds = {name: type(part) for name, part in network.named_modules()}
    assert kinds["enter"] is nn.Linear
    assert [name for name, kind in kinds.items() if kind is QuantisedLinear] == [
        f"blocks.{block}.{layer}" for block in range(2) for layer in ("first", "second")
    ]
    assert {p.dtype for name, p in network.named_parameters() if "weight" not in name} == {torch.bfloat16}


def test_no_weight_is_kept_in_full_between_forward_and_backward(net):
    sizes = []

    def kept(tensor: Tensor) -> Tensor:
        sizes.append((tuple(tensor.shape), tensor.dtype))
        return tensor

    x = torch.randn(2, 8).requires_grad_()
    network = held(net).modules["net"]
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        network(x)
    assert ((160, 48), torch.uint8) in sizes
    assert not {((160, 48), torch.float32), ((48, 160), torch.float32)} & set(sizes)


def test_forward_mode_derivatives_are_those_of_the_weights_it_stands_for(net):
    pairs: list[Any] = []
    for make in (held, meant):
        x = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
        pairs.append(torch.func.jvp(make(net).modules["net"], (x,), (x.cos(),)))
    assert torch.equal(pairs[0][0], pairs[1][0])
    assert torch.equal(pairs[0][1], pairs[1][1])


def test_a_copy_of_a_role_holds_its_weights_as_the_role_does(net):
    handle = RoleHandle("student", {"net": copy.deepcopy(net).to("meta")}, trainable=True, block_classes=(Block,))
    handle.weights = quantise(handle.modules, (Block,), FP8)(OwnWeights({"net": net}))
    copied = handle.copy("target")
    materialise(copied)
    assert torch.equal(copied.modules["net"](torch.ones(1, 8)), meant(net).modules["net"](torch.ones(1, 8)))
