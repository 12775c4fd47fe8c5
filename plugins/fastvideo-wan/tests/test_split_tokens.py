"""Processes that share the tokens of a call compute what one does with the whole; here each is a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.hidden_states import features_of
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.placing.shard import prepare_blocks
from fastvideo_core.weights.parameters import clean_name
from fastvideo_diffusers import sequence_parallel
from fastvideo_diffusers.sequence_parallel import whole_tokens
from fastvideo_wan.network import predict_velocity, split_tokens
from fastvideo_wan.sparse import GATE, add_gates, allow_sparse_calls, calling, sparse_call

SIZE = (2, 16, 3, 8, 12)
"""Of latents: 72 tokens, two tiles."""
PLAIN = {"patch_size": (1, 2, 2), "num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2, "ffn_dim": 32}
PLAIN |= {"in_channels": 16, "out_channels": 16, "text_dim": 32, "freq_dim": 32, "rope_max_seq_len": 32}
IMAGES = {"image_dim": 16, "added_kv_proj_dim": 32, "pos_embed_seq_len": 10, "in_channels": 36}


class Threads:
    """Stands for `torch.distributed` and for a group: what threads give each other, by rank."""

    def __init__(self, size: int) -> None:
        self._size, self._own = size, threading.local()
        self._barrier, self._given = threading.Barrier(size, timeout=60), dict[int, Tensor]()

    def run(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` gives on each rank."""

        def of_rank(rank: int) -> Any:
            self._own.rank = rank
            try:
                return work()
            except BaseException:
                self._barrier.abort()
                raise

        with ThreadPoolExecutor(self._size) as pool:
            return list(pool.map(of_rank, range(self._size)))

    def size(self) -> int:
        return self._size

    def rank(self) -> int:
        return int(self._own.rank)

    def _all(self, given: Tensor) -> list[Tensor]:
        self._barrier.wait()
        self._given[self._own.rank] = given
        self._barrier.wait()
        return [self._given[rank] for rank in range(self._size)]

    def all_gather_into_tensor(self, out: Tensor, given: Tensor, group: Threads) -> None:
        out.copy_(torch.cat(self._all(given)))

    def all_to_all_single(self, out: Tensor, given: Tensor, group: Threads) -> None:
        out.copy_(torch.stack([one[self._own.rank] for one in self._all(given)]))


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", ["text", "levels by token, twice", "images", "sparse", "features"])
def test_they_give_its_output_to_the_bit_and_their_mean_its_gradients(monkeypatch, case, size):
    """A second call on what the first gave sends gradients through the network's input."""
    group = Threads(size)
    monkeypatch.setattr(sequence_parallel, "dist", SimpleNamespace(**{n: getattr(group, n) for n in dir(group)}))
    torch.manual_seed(0)
    network = WanTransformer3DModel(
        **{**PLAIN, **(IMAGES if case == "images" else {})}, cross_attn_norm=True, qk_norm="rms_norm_across_heads"
    )
    whole, shares = results(case, deepcopy(network), None), group.run(lambda: results(case, deepcopy(network), group))
    for out, _ in shares:
        assert torch.equal(out, whole[0])
    scale = max(gradient.norm() for gradient in whole[1].values())
    for name, gradient in whole[1].items():
        mean = torch.stack([gradients[name] for _, gradients in shares]).mean(0)
        assert (mean - gradient).norm() <= 1e-5 * max(gradient.norm(), 1e-3 * scale), name


def results(case: str, network: Any, group: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients by name, also that of the latents."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    latents, text, onto = drawn(*SIZE).requires_grad_(), drawn(2, 512, 32), drawn(*SIZE)
    handle = RoleHandle("student", {"transformer": network}, trainable=True, block_classes=(WanTransformerBlock,))
    call = None
    if case == "sparse":
        add_gates(network)
        for block in network.blocks:
            torch.nn.init.constant_(getattr(block, GATE).bias, 0.5)
        handle.bindings = (allow_sparse_calls(network).binding,)
        call = sparse_call(network, SIZE, 0.5, latents.device)
    args = TrainingArgs(output_dir="out", max_train_steps=1, enable_gradient_checkpointing_type="full")
    prepare_blocks(handle, args)
    if group is not None:
        split_tokens(network, group)
    more = {"condition": drawn(2, 20, *SIZE[2:]), "features": drawn(2, 2, 5, 16)} if case == "images" else {}
    t = torch.tensor([300.0, 900.0])
    if case.startswith("levels"):
        t = torch.rand(2, 72, generator=generator) * 1000

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        with calling(network, call):
            return predict_velocity(network, noisy, t, text, **more, autocast=False)

    out = predict(latents, t)
    if case.endswith("twice"):
        out = predict(latents - 0.5 * out, t / 2)
    loss = (out * onto).sum()
    if case == "features":
        out = torch.stack(whole_tokens(network, features_of(list(network.blocks), lambda: predict(latents, t))))
        loss = loss + out.square().sum()
    loss.backward()
    named = [("latents", latents), *((clean_name(name), p) for name, p in network.named_parameters())]
    return out.detach(), {name: p.grad for name, p in named if p.grad is not None}
