"""What can be said of meshes, blocks, meta loading and adapters with one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle, RoleManager, is_lora_parameter
from fastvideo_core.distributed import context
from fastvideo_core.distributed.context import mesh_shape
from fastvideo_core.errors import CheckpointError, ConfigError, ContractError
from fastvideo_core.placing import shard
from fastvideo_core.placing.materialise import materialise
from fastvideo_core.placing.shard import on_host, prepare_blocks, shard_roles
from fastvideo_core.weights.lora import MergedWeights, add_lora, initialise_lora
from fastvideo_core.weights.parameters import clean_name

CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.out = nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.0))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.out(torch.tanh(self.up(x)))


class Network(nn.Module):
    table: torch.Tensor

    def __init__(self, *, keep_table: bool = True) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 2)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        with CPU if keep_table else torch.device("meta"):
            self.register_buffer("table", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x + self.table)


def handle_of(module: nn.Module, **options) -> RoleHandle:
    return RoleHandle("student", {"net": module}, trainable=True, block_classes=(Block,), **options)


def training(**options) -> TrainingArgs:
    return TrainingArgs(output_dir="out", max_train_steps=1, **options)


class Stored:
    """The weights of a network as if they were in files."""

    def __init__(self, network: nn.Module) -> None:
        self.state = network.state_dict()

    def tensor_names(self, module: str) -> list[str]:
        return list(self.state)

    def read(self, module: str, name: str, rows: slice | None = None) -> torch.Tensor:
        return self.state[name] if rows is None else self.state[name][rows]


@pytest.fixture
def stored():
    """A network."""
    network = Network()
    network.count.fill_(7)
    return network


def on_meta(**options) -> Network:
    with torch.device("meta"):
        return Network(**options)


# --- meshes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicate", "shard", "expected"), [(None, None, (1, 8)), (2, None, (2, 4)), (None, 2, (4, 2)), (8, 1, (8, 1))]
)
def test_what_is_left_out_of_the_mesh_follows(replicate, shard, expected):
    assert mesh_shape(training(hsdp_replicate_dim=replicate, hsdp_shard_dim=shard), 8) == expected


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "calls"), [(None, [1, 1]), ("full", [2, 2]), ("ops", [2, 2]), ("block_skip", [2, 1])])
def test_recomputed_blocks_keep_names_and_gradients(kind, calls):
    torch.manual_seed(0)
    network = Network()
    names = list(network.state_dict())
    blocks = list(network.blocks)
    x = torch.randn(3, 4)
    network(x).square().mean().backward()
    expected = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad()
    for block in blocks:
        block.calls = 0
    prepare_blocks(handle_of(network), training(enable_gradient_checkpointing_type=kind))
    network(x).square().mean().backward()
    assert [block.calls for block in blocks] == calls
    assert list(network.state_dict()) == names
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter.grad, expected[clean_name(name)])


def test_ops_keeps_matrix_products_and_recomputes_the_rest():
    network = Network()
    prepare_blocks(handle_of(network), training(enable_gradient_checkpointing_type="ops"))
    counted = CountedOps()
    loss = network(torch.randn(3, 4, requires_grad=True)).square().mean()
    with counted:
        loss.backward()
    assert counted.calls["tanh"] == 2
    assert counted.calls["addmm"] == 0


def test_ops_keeps_its_results_where_hooks_call_other_operators_in_the_recompute():
    torch.manual_seed(0)
    network, x = Network(), torch.randn(3, 4)
    network(x).square().mean().backward()
    expected = [p.grad for p in network.parameters()]
    network.zero_grad()
    blocks = list(network.blocks)
    prepare_blocks(handle_of(network), training(enable_gradient_checkpointing_type="ops"))

    def gathering(*_) -> None:
        with torch.profiler.record_function("as FSDP does"):
            torch.ones(len(seen)).mul(2)
        seen.append("hook")

    seen: list[str] = []
    for block in blocks:
        block.up.register_forward_pre_hook(gathering)
    loss = network(x).square().mean()
    for block in blocks:
        block.up.register_forward_hook(gathering)
    loss.backward()
    assert len(seen) > len(blocks)
    assert all(torch.equal(p.grad, one) for p, one in zip(network.parameters(), expected, strict=True))


class CountedOps(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = {"addmm": 0, "tanh": 0}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name in self.calls:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def test_every_block_is_compiled_by_itself_frozen_ones_too(monkeypatch):
    compiled = []
    monkeypatch.setattr(Block, "compile", lambda self: compiled.append(self))
    student, teacher = Network(), Network()
    frozen = RoleHandle("teacher", {"net": teacher}, block_classes=(Block,))
    shard_roles(RoleManager({"student": handle_of(student), "teacher": frozen}), training(enable_torch_compile=True))
    assert compiled == [*student.blocks, *teacher.blocks]


# --- from meta --------------------------------------------------------------------------------------------------------


def test_a_network_on_meta_gets_the_stored_weights_and_keeps_its_computed_buffers(stored):
    network = on_meta()
    network.head.to(torch.bfloat16)
    handle = handle_of(network, weights=Stored(stored))
    materialise(handle)
    assert handle.weights is None
    assert torch.equal(network.table, torch.arange(4.0))
    assert network.head.weight.dtype == torch.bfloat16
    for name, value in stored.state_dict().items():
        assert torch.equal(network.state_dict()[name], value.to(network.state_dict()[name].dtype)), name


def test_buffers_of_offloaded_weights_are_where_the_network_computes(stored, monkeypatch):
    """With a device that is not the CPU; here the one without memory."""
    other = on_meta()
    handle = handle_of(other, weights=Stored(stored))
    monkeypatch.setattr(context, "device", lambda: torch.device("meta"))
    materialise(handle, set(other.parameters()))
    assert {buffer.device.type for buffer in other.buffers()} == {"meta"}
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, stored.get_parameter(name))


def test_buffers_that_no_file_holds_must_be_computed_by_the_family(stored):
    handle = handle_of(on_meta(keep_table=False), weights=Stored(stored))
    with pytest.raises(ContractError, match=r"non-persistent buffers table of 'net' are on meta"):
        materialise(handle)


def test_weights_of_another_network_are_told_by_name(stored):
    network = on_meta()
    network.extra = nn.Linear(2, 2, device="meta")
    del network.head
    handle = handle_of(network, weights=Stored(stored))
    with pytest.raises(CheckpointError) as error:
        materialise(handle)
    assert "2 missing tensors: extra.bias, extra.weight" in str(error.value)
    assert "2 unexpected tensors: head.bias, head.weight" in str(error.value)


def test_weights_of_another_shape(stored):
    network = on_meta()
    network.head = nn.Linear(4, 3, device="meta")
    handle = handle_of(network, weights=Stored(stored))
    with pytest.raises(CheckpointError, match=r"'head\.weight' does not have the shape \[3, 4\]"):
        materialise(handle)


# --- adapters ---------------------------------------------------------------------------------------------------------


def test_adapters_are_float32_trained_alone_and_drawn_from_the_seed():
    values = []
    for seed in (1, 1, 2):
        network = Network().to(torch.bfloat16)
        handle = handle_of(network)
        state = torch.get_rng_state()
        add_lora(handle, LoraConfig(rank=2, targets=("up",)))
        initialise_lora(handle, seed)
        assert torch.equal(torch.get_rng_state(), state)
        adapters = {name: p for name, p in handle.named_parameters() if is_lora_parameter(name)}
        assert len(adapters) == 4
        assert {p.dtype for p in adapters.values()} == {torch.float32}
        assert handle.trainable_parameters() == list(adapters.values())
        values.append(torch.cat([p.detach().flatten() for p in adapters.values()]))
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_without_targets_every_linear_layer_of_the_blocks_has_an_adapter():
    handle = handle_of(Network())
    add_lora(handle, LoraConfig(rank=1))
    layers = {name.partition(".lora_A")[0] for name, _ in handle.named_parameters() if ".lora_A." in name}
    assert layers == {f"net.blocks.{i}.{layer}" for i in (0, 1) for layer in ("up", "out.0")}


def test_a_target_that_is_nowhere_is_an_error_that_lists_what_is():
    with pytest.raises(ConfigError) as error:
        add_lora(handle_of(Network()), LoraConfig(rank=1, targets=("up", "to_q", "ou")))
    text = str(error.value)
    assert "'to_q' is the end of no linear layer's name" in text
    assert "'ou' is" in text
    assert "'up' is" not in text
    assert "allowed: head, out.0, up" in text


def test_adapters_on_meta_weights_come_with_the_weights(stored):
    network = on_meta()
    handle = handle_of(network, weights=Stored(stored))
    add_lora(handle, LoraConfig(rank=2, targets=("out.0",)))
    materialise(handle)
    initialise_lora(handle, 0)
    x = torch.randn(3, 4)
    assert torch.equal(network(x), stored(x))


def test_merged_weights_are_those_of_the_adapted_network(stored):
    lora = LoraConfig(rank=2, alpha=3.0, targets=("up",))
    adapted, merged = on_meta(), on_meta()
    source = Stored(stored)
    handle = handle_of(adapted, weights=source)
    add_lora(handle, lora)
    materialise(handle)
    tensors = {}
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if is_lora_parameter(name):
                tensors[name] = parameter.normal_()
    assert {name.partition(".lora_")[0] for name in tensors} == {"blocks.0.up", "blocks.1.up"}
    below = Stored(stored)
    layered = MergedWeights(below, {"net": tensors}, lora.scale)
    materialise(handle_of(merged, weights=layered))
    x = torch.randn(3, 4)
    torch.testing.assert_close(merged(x), adapted(x))
    whole = layered.read("net", "blocks.0.up.weight")
    assert torch.equal(layered.read("net", "blocks.0.up.weight", slice(1, 3)), whole[1:3])
    assert not torch.equal(whole, below.read("net", "blocks.0.up.weight"))
    up, down = (tensors[f"blocks.0.up.lora_{part}.default.weight"] for part in "BA")
    assert torch.equal(whole, below.read("net", "blocks.0.up.weight") + 1.5 * (up @ down))


def test_a_frozen_role_that_the_method_changes_stays_beside_the_student():
    for saved, expected in ((None, True), (True, False)):
        handle = RoleHandle("target", {"net": nn.Linear(1, 1)}, saved=saved)
        assert bool(on_host(handle, "net", training(frozen_cpu_offload=True))) is expected


@pytest.fixture
def no_group():
    """Undoes the process group that offloading makes in one process."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_what_one_process_does_not_train_waits_in_host_memory_and_computes_the_same_bits(stored, no_group):
    """A frozen role, and the network of a trained one that its `train_modules` leave out; frozen parts of others stay."""
    handles = {
        "student": RoleHandle("student", {"high": Network(), "low": Network()}, trainable=True, block_classes=(Block,)),
        "teacher": RoleHandle("teacher", {"net": Network()}, block_classes=(Block,)),
    }
    handles["student"].train_only(["high"])
    for handle in handles.values():
        for module in handle.modules.values():
            module.load_state_dict(stored.state_dict())
    shard_roles(RoleManager(handles), training(frozen_cpu_offload=True))
    networks = {name: module for handle in handles.values() for name, module in handle.modules.items()}
    assert {name for name, module in networks.items() if isinstance(module, FSDPModule)} == {"low", "net"}
    for module in (networks["low"], networks["net"]):
        assert all(isinstance(p, DTensor) and p.to_local().device == CPU for p in module.parameters())
        assert isinstance(module.blocks[0], FSDPModule)  # which are brought one by one
    x = torch.randn(3, 4, requires_grad=True)
    for module in networks.values():
        given = x.detach().requires_grad_()
        expected = stored(x)
        assert torch.equal(module(given), expected)
        grads = [torch.autograd.grad(net(one).square().sum(), one)[0] for net, one in ((module, given), (stored, x))]
        assert torch.equal(*grads)


@pytest.mark.parametrize("kind", [None, "full"])
def test_the_last_blocks_below_adapters_wait_in_host_memory_and_all_gradients_are_the_same_bits(stored, kind, no_group):
    """Adapters, the other blocks and what is outside of blocks stay as they are: plain tensors, which no hook moves."""
    ends = {}
    for count in (0, 1):
        handle = handle_of(on_meta(), weights=Stored(stored))
        add_lora(handle, LoraConfig(rank=2))
        chosen = training(offload_blocks=count, enable_gradient_checkpointing_type=kind)
        shard_roles(RoleManager({"student": handle}), chosen)
        network = handle.modules["net"]
        materialise(handle, on_host(handle, "net", chosen))
        initialise_lora(handle, 0)
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        away = {clean_name(name) for name, p in network.named_parameters() if isinstance(p, DTensor)}
        base = {name for name, _ in network.named_parameters() if not is_lora_parameter(name)}
        assert away == {clean_name(name) for name in base if count and name.startswith("blocks.1.")}
        x = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
        for _ in range(2):
            network(x).square().sum().backward()
        assert all(p.grad is None for name, p in network.named_parameters() if name in base)
        ends[count] = [x.grad, *(parameter.grad for parameter in handle.trainable_parameters())]
    assert len(ends[1]) == 9
    assert all(torch.equal(one, other) for one, other in zip(*ends.values(), strict=True))


@pytest.mark.parametrize(("kind", "kept"), [("full", 2), ("block_skip", 1)])
def test_inputs_of_recomputed_blocks_alone_are_kept_on_the_host_and_gradients_are_the_same_bits(
    stored, kind, kept, monkeypatch
):
    """What autograd is given to keep is counted: on the CPU a copy to the host is the tensor itself."""
    packed: list[torch.Tensor] = []
    pinned: list[bool] = []

    def counting(pin_memory: bool) -> saved_tensors_hooks:
        pinned.append(pin_memory)
        return saved_tensors_hooks(lambda one: packed.append(one) or one.clone(), lambda one: one.clone())

    monkeypatch.setattr(shard, "save_on_cpu", counting)
    grads = []
    for away in (False, True):
        network = Network()
        network.load_state_dict(stored.state_dict())
        prepare_blocks(handle_of(network), training(enable_gradient_checkpointing_type=kind, offload_activations=away))
        network(torch.linspace(-1, 1, 12).reshape(3, 4)).square().sum().backward()
        grads.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
    assert [one.shape for one in packed if one.numel()] == [(3, 4)] * kept
    assert pinned == [False] * kept
    monkeypatch.setattr(context, "device", lambda: torch.device("cuda"))
    network = Network()
    prepare_blocks(handle_of(network), training(enable_gradient_checkpointing_type=kind, offload_activations=True))
    network(torch.ones(3, 4))
    assert pinned[kept:] == [True] * kept


def test_without_the_option_one_process_shards_nothing(stored):
    handle = RoleHandle("teacher", {"net": stored}, block_classes=(Block,))
    shard_roles(RoleManager({"teacher": handle}), training())
    assert not dist.is_initialized()
    assert type(stored) is Network
