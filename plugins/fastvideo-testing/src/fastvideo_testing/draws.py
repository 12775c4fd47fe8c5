"""Random draws that depend on the sample and not on how samples are cut into batches, rounds and processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.rng import RandomStreams, stream_seed

_FACTORIES = (torch.rand, torch.randn, torch.randint)
_FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.bernoulli_, Tensor.exponential_, Tensor.random_)


class _NamedStreams(RandomStreams):
    """Random streams that tell the name of a generator."""

    def __init__(self, seed: int, rank: int, device: torch.device) -> None:
        super().__init__(seed, rank, device)
        self.names: dict[int, str] = {}

    def _stream(self, key: str, rank: int | None, device: torch.device) -> torch.Generator:
        generator = super()._stream(key, rank, device)
        self.names[id(generator)] = key
        return generator


class PerSampleDraws(TorchFunctionMode):
    """Inside, `torch.rand`, `randn` and `randint` (and the in-place fills) with a generator of `method.rng` give sample i of
    a step the same numbers however the step's samples are distributed. Draws without a batch dimension are equal everywhere.

    Args:
        method: its `rng` is replaced.
        batch_size: samples per call of `single_train_step`.
    """

    def __init__(self, method: DistillMethod, batch_size: int) -> None:
        super().__init__()
        self._streams = _NamedStreams(method.rng.seed, method.rng.rank, method.rng.device)
        method.rng = self._streams
        self._batch_size = batch_size
        self._calls: Counter[str] = Counter()
        self._place = (0, 0)

    def begin(self, step: int, first_sample: int) -> None:
        """The next draws belong to a call of `single_train_step` for the samples from `first_sample` on."""
        self._calls.clear()
        self._place = (step, first_sample)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        name = self._streams.names.get(id(given.get("generator")))
        if name is None or func not in (*_FACTORIES, *_FILLS):
            return func(*args, **given)
        self._calls[name] += 1
        source = f"{name}/{self._place[0]}/{self._calls[name]}"
        if func in _FILLS:
            return self._fill(func, source, args, given)
        head, size = _size(func, args, given)
        given.pop("size", None)
        if not size or size[0] != self._batch_size:
            return func(*head, size, **self._seeded(given, source, None))
        rows = [func(*head, size[1:], **self._seeded(given, source, index)) for index in range(size[0])]
        return torch.stack(rows)

    def _fill(self, func: Any, source: str, args: Sequence[Any], given: dict[str, Any]) -> Tensor:
        tensor: Tensor = args[0]
        if tensor.ndim == 0 or len(tensor) != self._batch_size:
            func(tensor, *args[1:], **self._seeded(given, source, None))
        else:
            for index in range(len(tensor)):
                func(tensor[index], *args[1:], **self._seeded(given, source, index))
        return tensor

    def _seeded(self, given: dict[str, Any], source: str, index: int | None) -> dict[str, Any]:
        sample = None if index is None else self._place[1] + index
        generator = torch.Generator(given["generator"].device)
        generator.manual_seed(stream_seed(self._streams.seed, source, sample))
        return {**given, "generator": generator}


def _size(func: Any, args: Sequence[Any], given: Mapping[str, Any]) -> tuple[list[Any], tuple[int, ...]]:
    """The arguments before the size, and the size."""
    if "size" in given:
        return list(args), tuple(given["size"])
    if args and isinstance(args[-1], (tuple, list, torch.Size)):
        return list(args[:-1]), tuple(args[-1])
    return ([], tuple(args)) if func is not torch.randint else (list(args), ())
