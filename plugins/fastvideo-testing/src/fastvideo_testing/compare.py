"""Comparisons whose messages say what differs, where and by how much."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not bitwise equal, or are in one of the two only."""
    both = [name for name in before if name in after and not torch.equal(before[name], after[name])]
    return both + sorted(set(before) ^ set(after))


def loudest(tensors: Mapping[str, Tensor]) -> float:
    """The largest absolute value in all of them; 0 when there are none."""
    return max((float(tensor.abs().max()) for tensor in tensors.values() if tensor.numel()), default=0.0)


def assert_close(
    what: str, found: Tensor, expected: Tensor, *, scale: float | None = None, rtol: float = 1e-4, advice: str = ""
) -> None:
    """Equal shapes, and no entry off by more than `rtol` of the largest expected one (or of `scale`).

    Raises:
        AssertionError: `what`, the deviation, and `advice`.
    """
    tail = f"; {advice}" if advice else ""
    assert found.shape == expected.shape, f"{what} has shape {list(found.shape)}, not {list(expected.shape)}{tail}"
    if not expected.numel():
        return
    reference = float(expected.double().abs().max()) if scale is None else scale
    off = float((found.double() - expected.double()).abs().max())
    assert off <= rtol * max(reference, 1e-12), (
        f"{what} is off by {off:.3g} where values are up to {reference:.3g}{tail}"
    )


def assert_equal(what: str, found: Tensor, expected: Tensor, *, advice: str = "") -> None:
    """Bitwise equality.

    Raises:
        AssertionError: `what`, the deviation, and `advice`.
    """
    tail = f"; {advice}" if advice else ""
    assert found.shape == expected.shape, f"{what} has shape {list(found.shape)}, not {list(expected.shape)}{tail}"
    if not torch.equal(found, expected):
        off = float((found.double() - expected.double()).abs().max())
        raise AssertionError(f"{what} differs, by up to {off:.3g}{tail}")
