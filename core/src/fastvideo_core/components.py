"""What a model family gives to a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastvideo_core.adapter import DistillAdapter
from fastvideo_core.roles import RoleManager

if TYPE_CHECKING:  # the validator stands above this layer; only its type is named here
    from fastvideo_core.validator import DistillValidator


@dataclass
class ModelComponents:
    """The result of a family's `build(cfg: RunConfig)`.

    Args:
        bundle: the family's roles.
        adapter: how methods talk to the family's networks.
        validator: samples videos during training; None when the family cannot.
        dataloader: any iterable of raw batches; None to take core's parquet loader from `training.data_path`.
    """

    bundle: RoleManager
    adapter: DistillAdapter
    validator: DistillValidator | None = None
    dataloader: Iterable[Any] | None = None
