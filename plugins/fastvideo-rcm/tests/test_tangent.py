"""Forward-mode derivatives through attention: exact, in chunks, without a graph."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from fastvideo_rcm import tangent
from fastvideo_rcm.tangent import directional_derivative


def qkv(dtype: torch.dtype, *, heads: int = 2, key_heads: int = 2) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, 7, 8), (2, key_heads, 5, 8), (2, key_heads, 5, 8)]
    return tuple([torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes] for _ in range(2))  # type: ignore[return-value]


BOOLEAN = torch.tensor([True, False, True, True, False]).expand(2, 1, 1, 5)
PER_QUERY = torch.arange(35.0, dtype=torch.float64).reshape(7, 5) / 10
CASES = {
    "plain": {},
    "boolean mask": {"attn_mask": BOOLEAN},
    "additive mask": {"attn_mask": PER_QUERY},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "fewer heads of keys": {"enable_gqa": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scores", [1, 60, 2**20])
def test_attention_has_the_tangent_of_the_plain_formula(
    case: str, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tangent, "SCORES_IN_MEMORY", scores)
    options: dict[str, Any] = CASES[case]
    primals, tangents = qkv(torch.float64, key_heads=1 if options.get("enable_gqa") else 2)

    def attend(*inputs: Tensor) -> Tensor:
        return scaled_dot_product_attention(*inputs, **options)

    value, along = directional_derivative(attend, primals, tangents)
    with sdpa_kernel(SDPBackend.MATH):
        expected_value, expected = torch.func.jvp(attend, tuple(primals), tuple(tangents))
    torch.testing.assert_close(value, expected_value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(along, expected, rtol=1e-11, atol=1e-12)


def test_a_query_that_may_look_at_nothing_has_no_tangent() -> None:
    primals, tangents = qkv(torch.float64)
    mask = torch.ones(7, 5, dtype=torch.bool)
    mask[3] = False
    value, along = directional_derivative(
        lambda *inputs: scaled_dot_product_attention(*inputs, attn_mask=mask), primals, tangents
    )
    assert value[..., 3, :].abs().max() == along[..., 3, :].abs().max() == 0
    assert along.isfinite().all()


def test_what_does_not_move_adds_nothing() -> None:
    (query, key, value), (_, _, d_value) = qkv(torch.float64)
    _, along = directional_derivative(lambda v: scaled_dot_product_attention(query, key, v), [value], [d_value])
    torch.testing.assert_close(along, scaled_dot_product_attention(query, key, d_value))


def test_scores_are_never_in_memory_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tangent, "SCORES_IN_MEMORY", 2 * 2 * 5 * 2)  # of two queries of seven
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if (
                isinstance(out, Tensor) and out.shape[-1] == 5 and out.shape[-2] != 8
            ):  # queries x keys, not channels x keys
                largest = max(largest, out.shape[-2])
            return out

    primals, tangents = qkv(torch.float64)
    with Sizes():
        directional_derivative(scaled_dot_product_attention, primals, tangents)
    assert largest == 2


def test_the_direction_of_a_timestep_is_in_units_of_the_timestep() -> None:
    def velocity(x: Tensor, t: Tensor) -> Tensor:  # of N(1.7, 0.36), sigma = t / 1000
        s = t / 1000
        mean, variance = (1 - s) * 1.7, 0.36 * (1 - s) ** 2 + s**2
        return (s - 0.36 * (1 - s)) / variance * (x - mean) - 1.7

    x, t = torch.tensor([2.0, 0.5], dtype=torch.float64), torch.tensor([800.0, 500.0], dtype=torch.float64)
    v = velocity(x, t)
    value, along = directional_derivative(velocity, (x, t), (v, torch.full_like(t, 1000)))
    torch.testing.assert_close(value, v)
    # dv/ds along the flow, by hand: methods.md, O8.
    expected = torch.tensor([1.395481256, -1.089965398], dtype=torch.float64)
    torch.testing.assert_close(along, expected, rtol=0, atol=5e-10)


def test_neither_value_nor_tangent_has_a_graph_and_the_mode_ends_with_the_call() -> None:
    layer = nn.Linear(8, 8).double()
    primals, tangents = qkv(torch.float64)
    value, along = directional_derivative(
        lambda *inputs: layer(scaled_dot_product_attention(*inputs)), primals, tangents
    )
    assert not value.requires_grad
    assert not along.requires_grad
    scaled_dot_product_attention(*primals, dropout_p=0.5)  # torch's own again


def test_blocks_that_are_compiled_are_called_without_it() -> None:
    layer = nn.Linear(8, 8).double()
    primals, tangents = qkv(torch.float64)
    compiled = nn.Linear(8, 8).double()
    compiled.load_state_dict(layer.state_dict())
    compiled.compile(backend="aot_eager")
    plain, fast = (
        directional_derivative(
            lambda *inputs, layer=layer: layer(scaled_dot_product_attention(*inputs)), primals, tangents
        )[1]
        for layer in (layer, compiled)
    )
    torch.testing.assert_close(fast, plain, rtol=0, atol=0)


def test_active_dropout_is_refused() -> None:
    primals, tangents = qkv(torch.float64)
    with pytest.raises(ValueError, match=re.escape("active dropout (0.1) has no tangent")):
        directional_derivative(lambda *i: scaled_dot_product_attention(*i, dropout_p=0.1), primals, tangents)


@pytest.mark.parametrize("scores", [1, 2**20])
def test_a_mask_may_move(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tangent, "SCORES_IN_MEMORY", scores)
    primals, _ = qkv(torch.float64)

    def attend(mask: Tensor) -> Tensor:
        return scaled_dot_product_attention(*primals, attn_mask=mask)

    _, along = directional_derivative(attend, [PER_QUERY], [PER_QUERY.sin()])
    with sdpa_kernel(SDPBackend.MATH):
        _, expected = torch.func.jvp(attend, (PER_QUERY,), (PER_QUERY.sin(),))
    torch.testing.assert_close(along, expected, rtol=1e-11, atol=1e-12)
