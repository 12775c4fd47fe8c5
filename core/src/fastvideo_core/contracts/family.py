"""What a model family gives to a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import DistillAdapter, LatentsSource
from fastvideo_core.contracts.roles import RoleHandle, RoleManager

if TYPE_CHECKING:  # the validator stands above this layer; only its type is named here
    from fastvideo_core.contracts.validator import DistillValidator


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


@dataclass(frozen=True)
class RoleOutline:
    """A role without weights, from configurations alone: what `check` estimates its memory from.

    Args:
        handle: as `build` makes it, in the same dtypes, but with parameters on the meta device.
        evaluate: calls the network once on so many samples of the run's size, made of `torch.empty`, in the run's precision,
            and gives its output. It is called where tensors have shapes and no values, on the CPU.
    """

    handle: RoleHandle
    evaluate: Callable[[int], Tensor]


@runtime_checkable
class OutlinesRoles(Protocol):
    """What a family's `pipeline_config` class may offer: its roles' outlines, so that `check` knows of activations."""

    def role_outline(
        self,
        cfg: RunConfig,
        role: str,
        *,
        rows: Sequence[Mapping[str, Any]],
        latents_source: LatentsSource | None,
    ) -> RoleOutline:
        """The outline of one role.

        Args:
            cfg: the run; every role's path is the pipeline that it rests on.
            rows: raw batches of one, one for each latent shape of the data; none when the family brings its own data.
            latents_source: what the method will ask of prepare_batch; None when only running it can tell.

        Raises:
            UserError: path, sizes or data do not fit.
        """
        ...
