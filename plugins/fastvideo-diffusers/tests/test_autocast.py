"""A trained network inside sampling code."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastvideo_data.video_validator import evaluating
from fastvideo_diffusers.autocast import Autocast


class Transformer(nn.Module):
    """As far as a pipeline sees one."""

    config = SimpleNamespace(in_channels=4)
    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).to(dtype)
        self.dtype = dtype

    def cache_context(self, name: str) -> Any:
        return nullcontext(f"cache of {name}")

    def forward(self, *, hidden_states: Tensor, scale: float) -> tuple[Tensor]:
        return (self.layer(hidden_states) * scale,)


@pytest.mark.parametrize(
    ("weights", "enabled", "computed"),
    [
        (torch.float32, True, torch.bfloat16),
        (torch.float32, False, torch.float32),
        (torch.bfloat16, True, torch.bfloat16),
    ],
)
def test_float32_weights_compute_in_bfloat16_and_others_in_their_own_dtype(weights, enabled, computed):
    network = Autocast(Transformer(weights), enabled=enabled)
    (output,) = network(torch.ones(2, 4, dtype=weights), scale=2.0)
    assert output.dtype == computed
    assert not torch.is_autocast_enabled("cpu")


def test_a_pipeline_finds_what_it_asks_of_a_transformer():
    transformer = Transformer(torch.float32)
    network = Autocast(transformer)
    assert (network.config, network.dtype, network.device) == (transformer.config, torch.float32, torch.device("cpu"))
    with network.cache_context("cond") as given:
        assert given == "cache of cond"
    assert next(iter(network.parameters())) is transformer.layer.weight


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_also_after_an_error(training):
    network = nn.Sequential(nn.Dropout(0.5)).train(training)

    def stopped() -> None:
        with evaluating(network):
            assert not network.training
            assert not network[0].training
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    assert network.training == network[0].training == training
