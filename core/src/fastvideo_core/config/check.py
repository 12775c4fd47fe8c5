"""What single values cannot show: settings that contradict each other, files that are not there, packages missing."""

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastvideo_core.config.base import is_hub_id
from fastvideo_core.config.document import KeyPath, key_path
from fastvideo_core.config.problems import show
from fastvideo_core.config.run import OPTIMIZER_OVERRIDES, RoleConfig, RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import Problem

_DECAYING = ("linear", "cosine", "cosine_with_restarts", "polynomial")
SCHEDULE_USERS: Mapping[str, tuple[str, ...]] = {
    "lr_warmup_steps": ("constant_with_warmup", *_DECAYING),
    "min_lr_ratio": _DECAYING,
    "lr_num_cycles": ("cosine_with_restarts",),
    "lr_power": ("polynomial",),
}
"""Schedules that read each of the schedule's settings."""

_WHOLE = ("int8", "nf4")
_NUM_GPUS_UNSET = (
    "set num_gpus, which is 1 when it is left out and no launcher (torchrun, srun, ...) starts the processes"
)
_TOO_LONG = {
    "validation_steps": "nothing is validated",
    "training_state_checkpointing_steps": "only its end is saved",
    "logging_steps": "only its last step is logged",
}


class Contradiction(NamedTuple):
    """A problem and the keys of `training:` that it rests on: when one of them is wrong itself, there is no telling."""

    path: KeyPath
    problem: Problem
    rests_on: tuple[str, ...]


def training_contradictions(training: TrainingArgs, roles: Mapping[str, RoleConfig]) -> Iterator[Contradiction]:
    """Everything within `training:` that cannot be meant, or cannot work here, given the roles that could be read."""
    yield from _validation(training)
    yield from _schedule(training, roles)
    for given, absent in (("num_height", "num_width"), ("num_width", "num_height")):
        if getattr(training, given) is not None and getattr(training, absent) is None:
            yield _at(given, f"{given} is set but {absent} is not", absent, fix="set both or neither")
    yield from _paths(training)
    for index, tracker in enumerate(training.trackers):
        if not is_installed(tracker):
            fix = f"pip install {tracker}, or take it off the list"
            yield _at(("training", "trackers", index), f"{tracker} is not installed", fix=fix)
    yield from _processes(training, roles)
    if training.sync_gradients_every_round and training.gradient_accumulation_steps == 1:
        found = "found true, but gradient_accumulation_steps is 1"
        yield _at("sync_gradients_every_round", found, "gradient_accumulation_steps", fix="remove it")
    if training.resume_with_new_data and training.resume_from_checkpoint is None:
        found = "new data for a run that goes on, but it starts anew"
        fix = "add --resume latest (training.resume_from_checkpoint), or leave --new-data out"
        yield _at("resume_with_new_data", found, "resume_from_checkpoint", fix=fix)


def role_contradictions(name: str, roles: Mapping[str, RoleConfig], training: TrainingArgs) -> Iterator[Contradiction]:
    """Everything about one role that cannot be meant."""
    place, role = ("roles", name), roles[name]
    path = role.path
    if not role.trainable:
        for key in (*OPTIMIZER_OVERRIDES, "train_modules"):
            if (value := getattr(role, key)) is not None:
                found = f"found {show(value)} for a role that is not trained"
                yield _at((*place, key), found, fix="remove it, or set trainable: true")
    elif role.lr_warmup_steps:
        schedule = role.lr_scheduler or training.lr_scheduler
        if schedule == "constant":
            yield _unused((*place, "lr_warmup_steps"), role.lr_warmup_steps, {schedule})
        yield from _long_warmup((*place, "lr_warmup_steps"), role.lr_warmup_steps, training)
    if role.lora is not None and not role.trainable:
        found = "found adapters to train for a role that is not trained"
        fix = "remove lora (a checkpoint of adapters as path brings its own), or set trainable: true"
        yield _at((*place, "lora"), found, fix=fix)
    elif (role.lora or role.merge_lora) and not is_installed("peft"):
        found, key = "peft is not installed, which adapters need", "lora" if role.lora else "merge_lora"
        yield _at((*place, key), found, fix="pip install 'fastvideo-core[lora]'")
    if (held := role.base_precision) is not None:
        if role.trainable and role.lora is None:
            found = f"found {held} for a role that trains all its weights, which are float32"
            yield _at((*place, "base_precision"), found, fix="remove it, or add lora")
        elif held in _WHOLE and training.num_gpus > 1:
            found = f"found {held}, whose weights cannot be sharded, and num_gpus {training.num_gpus}"
            yield _at((*place, "base_precision"), found, "num_gpus", allowed="bf16 or fp8 on several processes")
    if not Path(path).exists() and not is_hub_id(path):
        yield _no_file((*place, "path"), path, "a diffusers folder, one of our checkpoints, or a hub id (org/name)")
    if role.share is None:
        return
    owners = [key for key, other in roles.items() if not (other.trainable or other.share)]
    if role.share not in owners:
        found = f"found {role.share!r}, which is no frozen role of this run with networks of its own"
        yield _at((*place, "share"), found, allowed=", ".join(owners), fix="remove it")
    elif role.lora is None:
        found = f"found share: {role.share} without adapters: all that a role trains on another's networks is its lora"
        yield _at((*place, "lora"), found, fix="add lora: {rank: 64}, or remove share")
    else:
        given = () if role.base_precision is None else ("base_precision",)
        for key in ("path", "family", "checkpoint_role", "weights", "merge_lora", *given):
            if (own := getattr(role, key)) != (other := getattr(roles[role.share], key)):
                found = f"found {show(own)}, and {show(other)} for {role.share}, whose networks it shares"
                yield _at((*place, key), found, fix="write both alike, or remove share")


def run_notes(cfg: RunConfig) -> Iterator[str]:
    """What does nothing in this run, a sentence each: intervals longer than it. No problems: runs are cut short for a try."""
    training, steps = cfg.training, cfg.training.max_train_steps
    for key, consequence in _TOO_LONG.items():
        counts = key != "validation_steps" or training.log_validation
        if counts and (value := getattr(training, key)) > steps:
            yield f"training.{key} {value} is more than the {steps} steps of the run: {consequence}"
    for name, section in cfg.callbacks.items():
        for key in ("every", "start_step"):
            wait = getattr(section, key, None)
            if isinstance(wait, int) and wait > steps - (key == "start_step"):
                yield f"callbacks.{name}.{key} {wait}: the callback does nothing in the {steps} steps of the run"


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    spec = importlib.util.find_spec(module)
    # The folder that wandb leaves in the working directory looks like a package without code.
    return spec is not None and spec.origin is not None


def _at(place: str | KeyPath, found: str, *rests_on: str, allowed: str = "", fix: str = "") -> Contradiction:
    """At a path, or at a key of `training:`."""
    path = ("training", place) if isinstance(place, str) else place
    own = path[1:2] if path[0] == "training" else ()
    return Contradiction(path, Problem(found, allowed=allowed, fix=fix), (*own, *rests_on))


def _validation(training: TrainingArgs) -> Iterator[Contradiction]:
    given = training.model_fields_set
    if training.log_validation and training.validation_steps == 0:
        found, fix = "log_validation is true but validation_steps is 0", "set validation_steps to 1 or more"
        key = "validation_steps" if "validation_steps" in given else "log_validation"
        yield _at(key, found, "log_validation", "validation_steps", fix=fix)
    if training.log_validation and training.validation_dataset_file is None:
        found = "log_validation is true but there is no validation_dataset_file"
        fix = "name a JSON file of prompts, or set log_validation: false"
        yield _at("validation_dataset_file", found, "log_validation", fix=fix)
    if "log_validation" not in given:
        for key in ("validation_steps", "validation_dataset_file"):
            if value := getattr(training, key):
                found = f"found {show(value)}, but nothing is validated without log_validation"
                yield _at(key, found, fix="add log_validation: true (or false, to keep this for later)")


def _schedule(training: TrainingArgs, roles: Mapping[str, RoleConfig]) -> Iterator[Contradiction]:
    trained = [role for role in roles.values() if role.trainable]
    for key, users in SCHEDULE_USERS.items():
        value = getattr(training, key)
        readers = [role for role in trained if getattr(role, key, None) is None]
        schedules = {role.lr_scheduler or training.lr_scheduler for role in readers} or {training.lr_scheduler}
        if value != TrainingArgs.model_fields[key].default and not schedules & set(users):
            yield _unused(("training", key), value, schedules)
    yield from _long_warmup(("training", "lr_warmup_steps"), training.lr_warmup_steps, training)


def _unused(path: KeyPath, value: Any, schedules: Iterable[str]) -> Contradiction:
    found = f"found {show(value)}, but lr_scheduler {' and '.join(sorted(schedules))} does not use it"
    allowed = f"with lr_scheduler {', '.join(SCHEDULE_USERS[path[-1]])}"
    return _at(path, found, "lr_scheduler", allowed=allowed, fix="remove it or change lr_scheduler")


def _long_warmup(path: KeyPath, steps: int, training: TrainingArgs) -> Iterator[Contradiction]:
    if steps > (most := training.max_train_steps):
        found = f"found {steps}, more than the whole run (max_train_steps {most})"
        yield _at(path, found, "max_train_steps", allowed=f"a whole number from 0 to {most}")


def _no_file(place: str | KeyPath, path: str, allowed: str) -> Contradiction:
    fix = f"check the path; relative ones count from {Path.cwd()}"
    return _at(place, f"there is no {path!r}", allowed=allowed, fix=fix)


def _paths(training: TrainingArgs) -> Iterator[Contradiction]:
    for key, source in training.data_sources.items():
        if not Path(source.path).exists():
            yield _no_file(key_path(key), source.path, "")
    for key in ("validation_dataset_file", "resume_from_checkpoint"):
        path, resumes = getattr(training, key), key == "resume_from_checkpoint"
        if path is not None and not (resumes and path == "latest") and not Path(path).exists():
            yield _no_file(key, path, "`latest` or a checkpoint folder" if resumes else "")


def _processes(training: TrainingArgs, roles: Mapping[str, RoleConfig]) -> Iterator[Contradiction]:
    gpus, shards, replicas = training.num_gpus, training.hsdp_shard_dim, training.hsdp_replicate_dim
    unset = "" if "num_gpus" in training.model_fields_set else _NUM_GPUS_UNSET
    if shards and replicas and shards * replicas != gpus:
        found = f"hsdp_replicate_dim {replicas} x hsdp_shard_dim {shards} is not num_gpus {gpus}"
        fix = unset or "let their product be num_gpus, or leave one of them out"
        yield _at("hsdp_shard_dim", found, "hsdp_replicate_dim", "num_gpus", fix=fix)
    elif not (shards and replicas) and gpus % (value := shards or replicas or 1):
        key = "hsdp_shard_dim" if shards else "hsdp_replicate_dim"
        yield _at(key, f"found {value}", "num_gpus", allowed=f"a whole number that divides num_gpus {gpus}", fix=unset)
    if gpus % (together := training.sequence_parallel):
        allowed = f"a whole number that divides num_gpus {gpus}"
        yield _at("sequence_parallel", f"found {together}", "num_gpus", allowed=allowed, fix=unset)
    elif together > 1 and training.enable_torch_compile:
        found = f"found {together}, and enable_torch_compile: exchanging tokens breaks a block's graph"
        yield _at("sequence_parallel", found, "enable_torch_compile", fix="leave one of them out")
    whole = all(role.trainable and role.train_modules is None for role in roles.values())
    if training.frozen_cpu_offload and roles and whole:
        yield _at("frozen_cpu_offload", "found true, but no role or network is frozen", fix="remove it")
    away, blocks = training.frozen_cpu_offload, training.offload_blocks
    if blocks and roles and (whole or away) and not any(role.lora for role in roles.values()):
        found = f"found {blocks}, but {'frozen_cpu_offload keeps all of it' if away else 'all weights are trained'}"
        yield _at("offload_blocks", found, "frozen_cpu_offload", fix="remove it")
    kind, compiles = training.enable_gradient_checkpointing_type, training.enable_torch_compile
    if blocks and compiles and kind is not None and gpus > 1 and any(role.share for role in roles.values()):
        found = (
            f"found {blocks}, and enable_torch_compile: a shared base's adapters are gathered apart inside of a block"
        )
        rests = ("enable_torch_compile", "enable_gradient_checkpointing_type", "num_gpus")
        yield _at("offload_blocks", found, *rests, fix="leave one of them out")
    if training.offload_activations and (kind is None or compiles):
        found = "found true, which keeps the inputs of blocks that are recomputed and not compiled"
        fix = "set enable_gradient_checkpointing_type: full, and not enable_torch_compile"
        yield _at("offload_activations", found, "enable_gradient_checkpointing_type", "enable_torch_compile", fix=fix)
    if training.optimizer != "adamw" and gpus > 1:
        found = f"found {training.optimizer}, which needs whole weights, and several processes hold shards of them"
        yield _at("optimizer", found, "num_gpus", allowed="adamw with several processes", fix="use adamw")
    if training.optimizer == "adamw8bit" and not is_installed("bitsandbytes"):
        fix = "pip install 'fastvideo-core[bitsandbytes]'"
        yield _at("optimizer", "bitsandbytes is not installed, which adamw8bit needs", fix=fix)
