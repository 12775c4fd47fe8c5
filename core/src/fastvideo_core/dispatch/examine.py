"""Everything that can be known of a run before weights are loaded: `check` shows it, and training asks the same questions."""

import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.checkpoint.storage import Choice, choose
from fastvideo_core.checkpoint.stored_state import StoredState
from fastvideo_core.checkpoint.training_state import weight_misfits
from fastvideo_core.checkpoint.weights import describe
from fastvideo_core.config.check import run_notes
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.family import Findings, ModelFamily, RoleOutline, open_family
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle, is_lora_parameter
from fastvideo_core.dispatch.output_dir import output_problems
from fastvideo_core.dispatch.plugin_checks import build_callbacks, check_adapters, check_requirements, method_class
from fastvideo_core.dispatch.role_weights import RoleSource, pin_lora, pin_role_paths, role_source
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, PluginError, Problem, UserError
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.tracking.wandb_login import FIX, wandb_login
from fastvideo_core.weights.lora import add_lora
from fastvideo_core.weights.parameters import clean_name
from fastvideo_core.weights.shared import SharedNetworks


@dataclass(frozen=True)
class Run:
    """A run whose plug-ins, roles and checkpoint are found.

    In `cfg`, as it is kept, role paths mean the same whenever and from wherever they are read, and `pipeline_config` is in full.
    `families` are one instance by name, the recipe's first; `sources` are where the weights of each role of run.yaml come from;
    `resumed` is the checkpoint that it goes on from, None for a new run.
    """

    cfg: RunConfig
    registry: PluginRegistry
    method: type[DistillMethod]
    families: Mapping[str, ModelFamily]
    sources: Mapping[str, RoleSource]
    resumed: Choice | None

    @property
    def based(self) -> RunConfig:
        """As families see it: a role's path is the pipeline that the role rests on, `merge_lora` what is merged into that."""
        found = {name: {"path": one.base, "merge_lora": one.lora_files or None} for name, one in self.sources.items()}
        return self.cfg.with_roles(found)

    @property
    def family(self) -> ModelFamily:
        """The recipe's family."""
        return self.families[self.cfg.recipe.family]

    @property
    def latents_source(self) -> LatentsSource | None:
        """Whether the method trains on the data's latents; None when it does not say."""
        return self.method.latents_source(self.cfg)

    def outline(self, role: str) -> RoleOutline | None:
        """As `ModelFamily.outline`: a role's networks on the meta device, without LoRA adapters."""
        family, owner = self.families[self.cfg.role_family(role)], self.cfg.roles[role].share
        outline = family.outline(self.based, owner or role, latents_source=self.latents_source)
        if outline is not None and owner is not None:
            base = SharedNetworks(outline.handle)
            outline = replace(outline, handle=replace(outline.handle, name=role, trainable=True, base=base))
        if outline is not None and (chosen := self.cfg.roles[role].train_modules) is not None:
            outline.handle.train_only(chosen)
        return outline

    def initial_lora(self, handle: RoleHandle) -> Mapping[str, Tensor]:
        """What the adapters of a handle start from, out of the files of `lora.init`; nothing where a run goes on."""
        if handle.lora is None or handle.lora.init is None or self.resumed is not None:
            return {}
        name = handle.copy_of or handle.name
        family, where = self.families[self.cfg.role_family(name)], f"roles.{name}.lora.init"
        names = [clean_name(key) for key, _ in handle.named_parameters() if is_lora_parameter(key)]
        return family.initial_lora(self.sources[name].base, handle.lora, names, where=where)

    def latent_space_problems(self) -> Iterator[Problem]:
        """Roles whose latents or text embeddings are not like the first role's."""
        first, of_first = "", None
        for role in self.cfg.roles:
            with suppress(UserError):  # told by the family's own check
                space = self.families[self.cfg.role_family(role)].latent_space(role)
                if of_first is None:
                    first, of_first = role, space
                elif space is not None and (differences := _differences(of_first, space)):
                    paths = {name: self.cfg.roles[name].path for name in (first, role)}
                    found = f"latents or text embeddings differ from those of {first} ({paths[first]}): {differences}"
                    allowed = "roles that train on the same latents and text embeddings"
                    yield Problem(found, where=f"roles.{role}.path ({paths[role]})", allowed=allowed)


def examine(cfg: RunConfig, registry: PluginRegistry, *, starts: bool) -> tuple[Run, Findings]:
    """The run, resolved, and what else is found out about it; raises ConfigError with all its problems. Collective.

    One that `starts` is about to be built: weights may be fetched to be looked at, what a killed save had put aside is put
    back, and plug-ins that are broken or do not fit are told alone (PluginError), as the rest needs them.
    """
    problems, warnings = check_requirements(cfg, registry)
    facts: list[str] = []
    method: type[DistillMethod] | None = None
    families: dict[str, ModelFamily] = {}
    sources: dict[str, RoleSource] = {}
    resumed: Choice | None = None
    earlier: Mapping[str, Any] = {}

    @contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except UserError as error:
            problems.extend(error.problems)

    for name in cfg.families:
        with noted():
            families[name] = open_family(name, registry)
    with noted():
        method = method_class(cfg.recipe.method, registry)
        check_adapters(cfg, method.needs(cfg), {name: family.adapter_class() for name, family in families.items()})
        if cfg.training.log_validation and method.log_validation is DistillMethod.log_validation:
            silent = f"the method {cfg.recipe.method!r} samples no videos: it does not define log_validation"
            raise ConfigError(Problem(silent, "training.log_validation", allowed="false", fix="set it to false"))
    if cfg.training.log_validation and (main := families.get(cfg.recipe.family)) and not main.validates():
        problems.append(no_validator(cfg))
    with noted():
        build_callbacks(cfg, registry)
    if starts and problems:
        raise PluginError(dict.fromkeys(problems))
    problems += output_problems(cfg)
    asks = starts and sys.stdin and sys.stdin.isatty()  # wandb does, on a terminal
    if "wandb" in cfg.training.trackers and context.is_main_process() and not asks:
        found, text = wandb_login()
        fix = f"{FIX}, or remove wandb from training.trackers"
        problems += [] if found else [Problem(f"wandb would not start: {text}", "training.trackers", fix=fix)]
    with noted():
        if (which := cfg.training.resume_from_checkpoint) is not None:
            resumed = choose(which, Path(cfg.training.output_dir), put_back=starts)
            warnings += resumed.notes()
            earlier, step = describe(resumed.path).config, resumed.step
            if step >= (steps := cfg.training.max_train_steps):
                text = f"the checkpoint is at step {step}, and training.max_train_steps is {steps}"
                raise ConfigError(Problem(text, where=cfg.source, fix="raise max_train_steps to train on"))
            afresh = ", the data starts afresh" if cfg.training.resume_with_new_data else ""
            facts.append(f"resume: after step {step}{afresh}")
    with noted():
        cfg = pin_role_paths(cfg, earlier)
    for name, role in cfg.roles.items():
        with noted():
            sources[name] = role_source(name, role)
    roles_known = len(sources) == len(cfg.roles)
    based = cfg.with_roles({name: {"path": source.base} for name, source in sources.items()})
    stored, usual = earlier.get("roles", {}), "bf16" if cfg.training.mixed_precision == "bf16" else "float32"
    for name, role in cfg.roles.items():
        held, known = role.base_precision, families.get(cfg.role_family(name))
        if (then := stored.get(name, {}).get("base_precision") or usual) != (now := held or usual) and name in stored:
            text = f"frozen weights were {then} up to the checkpoint, and are {now} from here on"
            warnings.append(f"roles.{name}.base_precision: {text}")
        if held is not None and known is not None and held not in known.base_precisions:
            text, allowed = f"the family {cfg.role_family(name)!r} holds no weights as {held}", known.base_precisions
            problems.append(Problem(text, f"roles.{name}.base_precision", ", ".join(allowed), "remove it"))
    for key, family in families.items() if cfg.training.sequence_parallel > 1 else ():
        if not family.splits_tokens:
            text = f"the networks of the family {key!r} cannot share their tokens"
            problems.append(Problem(text, "training.sequence_parallel", allowed="1", fix="remove it"))
    for family in families.values() if roles_known else ():
        with noted():
            problems += family.check_roles(based)
    for name, source in sources.items() if not problems else ():
        with noted():
            own = pin_lora(name, source, families[cfg.role_family(name)], earlier)
            cfg = cfg.with_roles({name: {"merge_lora": own or None}})
    if (main := families.get(cfg.recipe.family)) is not None:
        with noted():
            looked_at = main.check(
                based,
                latents_source=None if method is None else method.latents_source(cfg),
                many_steps=method is not None and method.student_schedule(cfg.method_config, lambda t: t) is None,
                download=starts,
                roles_known=roles_known,
            )
            problems += looked_at.problems
            warnings += looked_at.warnings
            facts = [*looked_at.facts, *facts]
    if cfg.training.data_path is None:
        facts.insert(0, "data: of the family's own loader, as there is no training.data_path")
    if method is not None and not problems:
        run = Run(cfg, registry, method, families, sources, resumed)
        problems += run.latent_space_problems()
        for name, role in cfg.roles.items():
            with noted():
                if role.lora and role.lora.init and resumed is None and (outline := run.outline(name)) is not None:
                    add_lora(outline.handle, role.lora)
                    run.initial_lora(outline.handle)
        with noted():
            problems += method.check(run.based, run.family)
        if not problems:
            section = run.family.resolve(run.based, latents_source=run.latents_source)
            warnings = list(dict.fromkeys([*warnings, *run_notes(cfg)]))
            return replace(run, cfg=replace(cfg, pipeline_config=section)), Findings((), tuple(warnings), tuple(facts))
    raise ConfigError(dict.fromkeys(problems))


def no_validator(cfg: RunConfig) -> Problem:
    """Of a run that asks for validation, by a family that cannot."""
    nobody = f"the family '{cfg.recipe.family}' gives no validator, so that nothing would be sampled"
    fix = "set it to false (whoever wrote the family defines `sampler`, or `validates`)"
    return Problem(nobody, where="training.log_validation", allowed="false", fix=fix)


def _differences(first: Mapping[str, object], other: Mapping[str, object]) -> str:
    def short(value: object) -> str:
        return "none" if value is None else textwrap.shorten(str(value), 60, placeholder="...")

    keys = [key for key in {**first, **other} if first.get(key) != other.get(key)]
    return "; ".join(f"{key} {short(other.get(key))}, not {short(first.get(key))}" for key in keys)


def device_warnings(cfg: RunConfig) -> list[str]:
    """Why the run could not be started on this machine; another one may have more."""
    visible, wanted = torch.cuda.device_count() if torch.cuda.is_available() else 0, cfg.training.num_gpus
    text = f"training.num_gpus is {wanted}, and this machine shows {visible}: each process needs a GPU of its own"
    return [text] if 0 < visible < wanted else []


def check_resume(run: Run) -> None:
    """Raises UserError where the checkpoint that a run goes on from is damaged, or has other roles, networks, callbacks or data.

    What only a built run knows (optimizers' groups, the method's own state) is compared when it starts.
    """
    if run.resumed is None:
        return
    cfg, path = run.cfg, run.resumed.path
    stored = StoredState(path, cfg.training)
    trainable = [name for name, role in cfg.roles.items() if role.trainable]
    outlines = [outline.handle for name in trainable if (outline := run.outline(name)) is not None]
    for handle in outlines:
        if (lora := cfg.roles[handle.name].lora) is not None:
            add_lora(handle, lora)
    then = [name for name, role in describe(path).config["roles"].items() if role.get("trainable")]
    with stored.understood():
        roles = {name: modules for name, modules in stored.tree["roles"].items() if name in then}
        problems = weight_misfits(roles, trainable=trainable, outlines=outlines, where=str(path))
    with suppress(Exception):  # broken ones are told as plug-ins, others may know their state only once they started
        problems += build_callbacks(cfg, run.registry).misfits(stored.tree["callbacks"])
    if not cfg.training.resume_with_new_data:
        problems += run.family.resume_problems(run.based, stored.tree["dataloader"])
    if problems:
        raise ConfigError(problems)
