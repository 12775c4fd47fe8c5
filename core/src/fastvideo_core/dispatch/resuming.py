"""What is wrong with going on from a checkpoint, known before weights are loaded: `check` asks what the run will ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.choice import Choice
from fastvideo_core.checkpoint.rank_state import with_own_state
from fastvideo_core.checkpoint.tensors import StoredTensors
from fastvideo_core.checkpoint.training_state import misfits, stored_shapes
from fastvideo_core.checkpoint.weights import describe
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.family import RoleOutline
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.memory_estimate import outline_of
from fastvideo_core.dispatch.plugins import build_callbacks
from fastvideo_core.dispatch.preflight import latents_source
from fastvideo_core.dispatch.role_weights import pin_role_paths
from fastvideo_core.errors import Problem, UserError
from fastvideo_core.registry.registry import PluginRegistry
from fastvideo_core.weights.lora import add_adapters
from fastvideo_data.loading.loader import ParquetLoader


def resume_problems(
    cfg: RunConfig,
    registry: PluginRegistry,
    choice: Choice,
    loader: ParquetLoader | None,
    rows: Sequence[Mapping[str, Any]] = (),
) -> list[Problem]:
    """What does not fit: roles and their networks, callbacks, the data.

    What only a built run knows (optimizers' groups, the method's own state) is compared when it starts.

    Args:
        loader: of the run's data, if core reads it; it is moved to the stored position.
        rows: as `OutlinesRoles.role_outline` takes them.

    Raises:
        UserError: the checkpoint is damaged, or what the roles rest on is gone.
    """
    cfg = pin_role_paths(cfg, describe(choice.path).config)
    new_data = cfg.training.resume_with_new_data
    document = storage.read_document(choice.path)
    skeleton, own = with_own_state(choice.path, document, cfg.training.num_gpus, new_data=new_data)
    stored = stored_shapes(skeleton, StoredTensors(choice.path / storage.TENSORS), own)
    trainable = [name for name, role in cfg.roles.items() if role.trainable]
    outlines = [handle for name in trainable if (handle := _outline(cfg, registry, name, rows)) is not None]
    problems = misfits(stored, trainable=trainable, outlines=outlines, where=str(choice.path))
    problems += _callbacks(cfg, registry, stored["callbacks"])
    if loader is not None and not new_data and ParquetLoader.is_state(stored["dataloader"]):
        try:
            loader.load_state_dict(stored["dataloader"])
        except UserError as error:
            problems += error.problems
    return problems


def _callbacks(cfg: RunConfig, registry: PluginRegistry, stored: Mapping[str, dict[str, Any]]) -> list[Problem]:
    try:
        return build_callbacks(cfg, registry).misfits(stored)
    except Exception:  # broken ones are told as plug-ins; others may know their state only once they have started
        return []


def _outline(
    cfg: RunConfig, registry: PluginRegistry, name: str, rows: Sequence[Mapping[str, Any]]
) -> RoleHandle | None:
    try:
        outline = outline_of(cfg, registry, name, rows, latents_source(cfg))
    except UserError:
        return None  # told where the role itself is looked at
    handle = outline.handle if isinstance(outline, RoleOutline) else outline
    if handle is not None and (lora := cfg.roles[name].lora) is not None:
        add_adapters(handle, lora)
    return handle
