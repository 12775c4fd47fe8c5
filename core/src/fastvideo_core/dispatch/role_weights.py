"""Where a role's weights come from: a diffusers folder or hub id, or one of our own checkpoints on top of one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.weights import CheckpointInfo, CheckpointWeights, describe, read_role_weights
from fastvideo_core.config.run import LoraConfig, MergedLora, RoleConfig, RunConfig
from fastvideo_core.contracts.family import ModelFamily
from fastvideo_core.contracts.roles import OwnWeights, RoleHandle, WeightSource
from fastvideo_core.errors import CheckpointError, ConfigError, Problem
from fastvideo_core.placing.materialise import fill
from fastvideo_core.weights.lora import MergedWeights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoleSource:
    """What a role starts from.

    `base` is the diffusers folder or hub id that gives architecture, text encoder and VAE; the weights of one of our
    checkpoints replace its own (`ema`: its averaged ones). `lora` and `below` are of a checkpoint that holds adapters: how
    they count, and what they were trained on. `merged` are LoRA files that are added to all that.
    """

    base: str
    checkpoint: Path | None = None
    checkpoint_role: str = ""
    ema: bool = False
    lora: LoraConfig | None = None
    below: RoleSource | None = None
    merged: tuple[MergedLora, ...] = ()

    @property
    def lora_files(self) -> tuple[MergedLora, ...]:
        """Its own LoRA files, after those that are read for the weights which its checkpoint's adapters were trained on."""
        return (self.below.lora_files if self.below is not None else ()) + self.merged

    def __str__(self) -> str:
        merged = "".join(f" + {file}" for file in self.merged)
        if self.checkpoint is None:
            return f"{self.base}{merged}"
        kind = f"{'EMA' if self.ema else 'raw'} {'weights' if self.lora is None else 'adapters'}"
        return f"{self.checkpoint} ({self.checkpoint_role}, {kind}) on {self.below or self.base}{merged}"


def find_checkpoint(path: str) -> Path | None:
    """The checkpoint that `path` means: itself, or the newest of a run's folder; None when it is neither.

    Raises CheckpointError for a damaged one, and for a run's folder without a complete one.
    """
    folder = Path(path)
    documents = (one / storage.DOCUMENT for one in (folder, *storage.checkpoints(folder)))
    is_one = any(file.is_file() for file in (folder / storage.RUN_CONFIG, *documents))
    return storage.resolve_checkpoint(folder) if is_one else None


def role_source(name: str, role: RoleConfig, places: Mapping[str, str] | None = None) -> RoleSource:
    """What the role `name` starts from; `places`: what messages call `checkpoint_role` and `weights`, if not by their keys.

    Raises ConfigError for these on a path that is no checkpoint, CheckpointError where it has no such role or EMA weights.
    """
    places = places or {key: f"roles.{name}.{key}" for key in ("checkpoint_role", "weights")}
    checkpoint, merged = find_checkpoint(role.path), role.merge_lora or ()
    if checkpoint is None:
        given = {"checkpoint_role": role.checkpoint_role is not None, "weights": role.weights != "auto"}
        found, fix = f"is for checkpoints, and {role.path} is none", "leave it out, or name a checkpoint's folder"
        if problems := [Problem(found, places[key], fix=fix) for key, is_given in given.items() if is_given]:
            raise ConfigError(problems)
        return RoleSource(role.path, merged=merged)
    contents = describe(checkpoint)
    stored = tuple(contents.roles)
    saved = role.checkpoint_role or (stored[0] if len(stored) == 1 else name)
    if saved not in stored:
        found, held = f"{checkpoint} holds no role '{saved}'", f"it holds: {', '.join(stored)}"
        raise CheckpointError(Problem(found, places["checkpoint_role"], held, "name one of them"))
    ema = saved in contents.ema_roles if role.weights == "auto" else role.weights == "ema"
    if ema and saved not in contents.ema_roles:
        found = f"{checkpoint} has no EMA weights of role '{saved}'"
        allowed = f"roles with EMA weights: {', '.join(contents.ema_roles) or 'none'}"
        raise CheckpointError(Problem(found, places["weights"], allowed, "take the raw weights"))
    configured = configured_role(saved, contents)
    trained = RoleConfig.model_validate(contents.config["roles"][configured])
    below = role_source(configured, trained)
    if again := {os.path.realpath(file.path) for file in merged} & {file.path for file in below.lora_files}:
        found = f"the weights in {checkpoint} hold {', '.join(again)} already"
        raise ConfigError(Problem(found, f"roles.{name}.merge_lora", fix="remove it"))
    if trained.lora is None:
        return RoleSource(below.base, checkpoint, saved, ema, merged=merged)
    return RoleSource(below.base, checkpoint, saved, ema, trained.lora, below, merged)


def configured_role(saved: str, contents: CheckpointInfo) -> str:
    """The role of the checkpoint's run.yaml whose networks a stored role has: itself, or the one that it is a copy of.

    Raises CheckpointError where the method made it of its own networks.
    """
    configured = contents.copies.get(saved, saved)
    if configured not in contents.config["roles"]:
        found = f"the role '{saved}' of {contents.path} has networks of the method, which are no pipeline's"
        known = [role for role in contents.roles if contents.copies.get(role, role) in contents.config["roles"]]
        raise CheckpointError(Problem(found, allowed=", ".join(known), fix="name another role"))
    return configured


def pin_role_paths(cfg: RunConfig, earlier: Mapping[str, Any]) -> RunConfig:
    """The run with role paths that always mean the same: absolute, and the one checkpoint of a run's folder.

    `earlier` is the stored configuration of the checkpoint that the run goes on from, if it does: where a role's path is a run's
    folder, it goes on with the checkpoint that it started from, not with one that came since. Raises CheckpointError where that
    one is gone, or adapters would go on on another base, or with another rank or alpha, or moments with another optimizer.
    """
    stored: Mapping[str, Any] = earlier.get("roles") or {}
    paths, problems, now = {}, list[Problem](), cfg.training.optimizer
    if (then := (earlier.get("training") or {}).get("optimizer", "adamw" if earlier else now)) != now:
        found, fix = f"the checkpoint's moments are those of {then}, not of {now}", f"go on with {then}"
        problems.append(Problem(found, "training.optimizer", fix=f"{fix}, or start a new run from its weights"))
    for name, role in cfg.roles.items():
        path, before = Path(os.path.realpath(role.path)), Path(stored.get(name, {}).get("path", ""))
        checkpoint = find_checkpoint(role.path)
        if checkpoint is not None and before.parent == path and not (path / storage.DOCUMENT).is_file():
            checkpoint = before
            if not (before / storage.DOCUMENT).is_file():
                found = f"the run started with {before}, which is gone"
                fix = f"restore it, or name the checkpoint to go on with instead of {role.path}"
                raise CheckpointError(Problem(found, f"roles.{name}.path", fix=fix))
        if checkpoint is not None or path.exists():
            paths[name] = str((checkpoint or path).resolve())
    pinned = cfg.with_roles({name: {"path": path} for name, path in paths.items()})
    for name, role in pinned.roles.items():
        if role.lora is not None and stored.get(name, {}).get("lora"):  # else the weights do not fit, which is told
            problems += _other_adapters(name, RoleConfig.model_validate(stored[name]), role)
    if problems:
        raise CheckpointError(problems)
    return pinned


def _other_adapters(name: str, then: RoleConfig, now: RoleConfig) -> list[Problem]:
    """What of a role's adapters is not in the checkpoint, so that nothing else would notice that it is another."""
    problems = []
    loras = [role.lora for role in (then, now) if role.lora is not None]
    if len({(lora.rank, lora.scale) for lora in loras}) > 1:
        one, other = (f"rank {lora.rank} and alpha {lora.scale * lora.rank:g}" for lora in loras)
        found = f"the checkpoint's adapters have {one}, this run's {other}"
        fix = f"go on with {one}, or start a new run with the checkpoint as the role's path"
        problems.append(Problem(found, f"roles.{name}.lora", fix=fix))
    before, path = Path(then.path), Path(now.path)
    one, other = (" ".join([role.path, *_choice(role)]) for role in (then, now))
    found = f"the checkpoint's adapters were trained on {one}; this run puts them on {other}"
    # The base's folder is not here any more, or a hub id was downloaded into a folder.
    moved = not before.exists() and (before.is_absolute() or path.exists()) and _choice(then) == _choice(now)
    if one != other and moved:
        logger.warning("roles.%s.path: %s, which must hold the same weights", name, found)
    elif one != other:
        fix = f"go on with {one}, or train new adapters in a new run"
        problems.append(Problem(found, f"roles.{name}.path", fix=fix))
    return problems


def _choice(role: RoleConfig) -> list[str]:
    """Which weights of a checkpoint a role takes, as run.yaml says it."""
    named = [] if role.checkpoint_role is None else [f"checkpoint_role: {role.checkpoint_role}"]
    return named + ([] if role.weights == "auto" else [f"weights: {role.weights}"])


def pin_lora(name: str, source: RoleSource, family: ModelFamily, earlier: Mapping[str, Any]) -> tuple[MergedLora, ...]:
    """A role's own LoRA files as they are recorded, once all that it needs were looked at.

    Raises ConfigError as `ModelFamily.merge_lora`, and where the role merged others in the run that goes on (`earlier`).
    """
    where = f"roles.{name}.merge_lora"
    kept = [family.merge_lora(source.base, OwnWeights({}), file, where=where)[1] for file in source.lora_files]
    own = tuple(kept[len(kept) - len(source.merged) :])
    stored = earlier.get("roles", {}).get(name)
    then = own if stored is None else RoleConfig.model_validate(stored).merge_lora or ()
    if [(one.fingerprint, one.scale, one.module) for one in own] != [(o.fingerprint, o.scale, o.module) for o in then]:
        one, other = (", ".join(map(str, files)) or "nothing" for files in (then, own))
        found = f"the run began with {one} merged into the role, and now it is {other}"
        raise ConfigError(Problem(found, where, fix=f"go on with {one}, or start a new run"))
    return own


def load_role(handle: RoleHandle, source: RoleSource, family: ModelFamily) -> None:
    """Puts the checkpoint's weights, if the source has one, into the networks of the handle, which have memory, and LoRA files.

    Raises CheckpointError, naming what is missing, unexpected or of another shape; ConfigError as `ModelFamily.merge_lora`.
    """
    if source.checkpoint is not None or source.merged:
        weights = layered(OwnWeights(handle.modules), source, family)
        for name, module in handle.modules.items():
            fill(handle, name, module, weights)


def layered(base: WeightSource, source: RoleSource, family: ModelFamily) -> WeightSource:
    """The weights of a role whose networks are on meta: the base's own, a checkpoint's, adapters and LoRA files merged into them.

    Raises CheckpointError where the checkpoint is damaged, or adapters are on no weight of the network, and as `load_role`.
    """
    weights, checkpoint = base, source.checkpoint
    if checkpoint and source.below and source.lora:
        below = layered(base, source.below, family)
        stored = read_role_weights(checkpoint, source.checkpoint_role, ema=source.ema)
        for module, adapters in stored.items():
            adapted = {f"{name.partition('.lora_')[0]}.weight" for name in adapters}
            if unknown := sorted(adapted - set(below.tensor_names(module))):
                found = f"the network has no weight {', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''}"
                where = f"adapters of {checkpoint}, role '{source.checkpoint_role}', module '{module}'"
                raise CheckpointError(Problem(found, where, fix="put them on the network that they were trained on"))
        weights = MergedWeights(below, stored, source.lora.scale)
    elif checkpoint:
        weights = CheckpointWeights(checkpoint, source.checkpoint_role, ema=source.ema)
    for file in source.merged:
        weights, _ = family.merge_lora(source.base, weights, file, where="merge_lora")
    return weights
