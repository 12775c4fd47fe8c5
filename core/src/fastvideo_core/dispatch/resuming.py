"""What is wrong with going on from a checkpoint, known before weights are loaded: `check` asks what the run will ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.rank_state import with_own_state
from fastvideo_core.checkpoint.tensors import StoredTensors
from fastvideo_core.checkpoint.training_state import misfits, stored_shapes
from fastvideo_core.checkpoint.weights import describe
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.plugins import build_callbacks
from fastvideo_core.dispatch.run import Run
from fastvideo_core.errors import Problem
from fastvideo_core.registry.registry import PluginRegistry
from fastvideo_core.weights.lora import add_adapters


def resume_problems(run: Run) -> list[Problem]:
    """What does not fit the checkpoint that a run goes on from: roles and their networks, callbacks, the data.

    What only a built run knows (optimizers' groups, the method's own state) is compared when it starts.

    Raises:
        UserError: the checkpoint is damaged.
    """
    if run.resumed is None:
        return []
    cfg, path = run.cfg, run.resumed.path
    new_data = cfg.training.resume_with_new_data
    document = storage.read_document(path)
    skeleton, own = with_own_state(path, document, cfg.training.num_gpus, new_data=new_data)
    stored = stored_shapes(skeleton, StoredTensors(path / storage.TENSORS), own)
    trainable = [name for name, role in cfg.roles.items() if role.trainable]
    outlines = [handle for name in trainable if (handle := _outline(run, name)) is not None]
    # What the method keeps besides is compared when the run starts.
    then = [name for name, role in describe(path).config["roles"].items() if role.get("trainable")]
    stored["roles"] = {name: modules for name, modules in stored["roles"].items() if name in then}
    problems = misfits(stored, trainable=trainable, outlines=outlines, where=str(path))
    problems += _callbacks(cfg, run.registry, stored["callbacks"])
    if not new_data:
        problems += run.family.resume_problems(run.based, stored["dataloader"])
    return problems


def _callbacks(cfg: RunConfig, registry: PluginRegistry, stored: Mapping[str, dict[str, Any]]) -> list[Problem]:
    try:
        return build_callbacks(cfg, registry).misfits(stored)
    except Exception:  # broken ones are told as plug-ins; others may know their state only once they have started
        return []


def _outline(run: Run, name: str) -> RoleHandle | None:
    outline = run.outline(name)
    if outline is None:
        return None
    if (lora := run.cfg.roles[name].lora) is not None:
        add_adapters(outline.handle, lora)
    return outline.handle
