"""`fastvideo-distill evaluate`: the same prompts and seeds through teacher and students, measured, on one page."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvideo_core.cli.options import finite, seed, up_to
from fastvideo_core.config import limits
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:  # torch is imported when there is something to do, not to show help
    from fastvideo_core.contracts.validator import ValidationPrompt
    from fastvideo_evaluate.command.clips import Clips
    from fastvideo_evaluate.command.models import Candidate
    from fastvideo_evaluate.command.sampling import Setting, Shared
    from fastvideo_evaluate.command.videos import Videos
    from fastvideo_evaluate.metrics.contract import Metric

SEEDS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    model = "a run's folder (all its checkpoints), a checkpoint, or a diffusers folder; several are compared"
    parser.add_argument("models", nargs="+", metavar="MODEL", help=model)
    teacher = "the teacher: a diffusers folder, a hub id, a checkpoint (default: the one that the runs name)"
    parser.add_argument("--against", metavar="TEACHER", help=teacher)
    real = "compare with real clips instead of a teacher: a folder of videos with the prompts as captions, as preprocess takes it"
    parser.add_argument("--against-clips", metavar="FOLDER", help=real)
    prompts = "validation JSON, or text with a prompt a line"
    parser.add_argument("--prompts", required=True, type=Path, metavar="FILE", help=prompts)
    seeds = f"videos of each prompt, with seeds that count up from its own, or from --seed (default: {SEEDS})"
    parser.add_argument("--seeds", type=up_to(limits.SAMPLES), default=SEEDS, metavar="N", help=seeds)
    output = "folder of the videos, results.json and index.html; called again, it goes on there"
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help=output)
    measured = "names with commas between (default: all installed ones that need no model)"
    parser.add_argument("--metrics", metavar="NAMES", help=measured)
    own = "the model that a metric asks: a folder, or a hub id in the local cache (repeatable)"
    parser.add_argument("--metric-weights", action="append", default=[], metavar="NAME=PATH", help=own)
    which = "of checkpoints: raw, ema, or both where there are EMA weights (default)"
    parser.add_argument("--weights", choices=("both", "raw", "ema"), default="both", help=which)
    parser.add_argument("--role", help="which role of checkpoints (default: student, or its only role)")
    parser.add_argument("--family", help="the model family (default: what the checkpoint or model_index.json says)")
    sampled = parser.add_argument_group("sampling (default: as the run says, students as they were distilled)")
    for whose, prefix in (("the models", ""), ("the teacher", "against-")):
        steps, guidance = f"sample {whose} in so many steps", f"w of u + w (c - u) for {whose}; 1 is none"
        sampled.add_argument(f"--{prefix}steps", type=up_to(limits.SAMPLING_STEPS), metavar="N", help=steps)
        sampled.add_argument(f"--{prefix}guidance-scale", type=finite, metavar="W", help=guidance)
    sampled.add_argument(
        "--height", type=up_to(limits.PIXELS), help="pixels (default: of the prompt, the run, the family)"
    )
    sampled.add_argument("--width", type=up_to(limits.PIXELS), help="pixels (default: likewise)")
    sampled.add_argument("--num-frames", type=up_to(limits.FRAMES), help="frames (default: likewise)")
    sampled.add_argument("--seed", type=seed, default=0, help="first seed of prompts without one (default: 0)")
    several = "on this machine, each with a GPU and its share of the videos; torchrun and srun may start them, too (default: 1)"
    parser.add_argument("--num-processes", type=up_to(limits.PROCESSES), default=1, metavar="N", help=several)


def run(args: argparse.Namespace) -> int:
    """Samples what is missing, in this process or in several that it starts, and writes results and page."""
    from fastvideo_core.dispatch.output_dir import alone_in
    from fastvideo_core.launch.launcher import (
        complete_environment,
        end_with_launcher,
        has_own_launcher,
        launched_processes,
    )
    from fastvideo_core.launch.processes import start_processes

    launched = launched_processes()
    if launched is not None:
        complete_environment()
        end_with_launcher()
        rank = int(os.environ["RANK"])
        measures = rank == 0 and not has_own_launcher()  # which does it itself, once all have ended
        work = _Work(args, measures=measures)
        if not has_own_launcher():
            work.videos.begin()
        work.sample(rank, launched)
        if measures:
            work.finish(waits=True)
        return 0
    work = _Work(args)
    with alone_in(args.output, where="--output"):
        work.videos.begin()
        if args.num_processes == 1:
            work.sample(0, 1)
        elif status := start_processes(args.num_processes, args.typed):
            return status
        work.finish()
    return 0


class _Work:
    """What the command line asks for, looked at as a whole before anything is sampled.

    Args:
        measures: whether this process measures, and needs metrics.

    Raises:
        UserError: something of it does not fit.
    """

    def __init__(self, args: argparse.Namespace, *, measures: bool = True) -> None:
        from fastvideo_core.config.output_folder import check_writable_folder
        from fastvideo_evaluate.command.clips import open_clips
        from fastvideo_evaluate.command.models import identity, keeps_pairs, open_candidates, open_teacher
        from fastvideo_evaluate.command.results import usable
        from fastvideo_evaluate.command.sampling import Setting, Shared
        from fastvideo_evaluate.command.videos import Videos

        _check_options(args)
        check_writable_folder(args.output, "--output")
        self.args = args
        self.candidates: list[Candidate] = open_candidates(
            args.models, args.registry, family=args.family, role=args.role, weights=args.weights
        )
        self.teacher: Candidate | None = None
        if args.against_clips is None:
            self.teacher = open_teacher(args.against, self.candidates, args.registry)
        self.shared: Shared = Shared(_prompts(args, self.everyone), args.seeds)
        self.clips: Clips | None = None if args.against_clips is None else open_clips(args.against_clips, self.shared)
        self.reference: Candidate | Clips | None = self.teacher or self.clips
        made = _metrics(args) if measures else {}
        pairs = self.clips is None and all(keeps_pairs(one.model, args.registry) for one in self.candidates)
        self.metrics, self.notes = usable(made, _names(args), self.reference, self.shared, keeps_pairs=pairs)
        self.settings: dict[str, Setting] = {
            one.name: Setting(args.steps, args.guidance_scale)
            if one is not self.teacher
            else Setting(args.against_steps, args.against_guidance_scale)
            for one in self.everyone
        }
        told: dict[str, dict[str, Any]] = {
            one.name: {
                "weights": identity(one.model.source),
                "pipeline_config": one.model.pipeline_config.model_dump(mode="json"),
                "steps": self.settings[one.name].steps,
                "guidance_scale": self.settings[one.name].guidance_scale,
            }
            for one in self.everyone
        }
        if self.clips is not None:
            told[self.clips.name] = {"clips": self.clips.identity}
        self.videos: Videos = Videos(args.output, self.shared.prompts, told)

    @property
    def everyone(self) -> list[Candidate]:
        """The teacher first."""
        return [*([self.teacher] if self.teacher else []), *self.candidates]

    def sample(self, rank: int, size: int) -> None:
        """This process's share of the videos."""
        from fastvideo_core.launch.stdio import say
        from fastvideo_evaluate.command.sampling import sample_missing

        if rank == 0:
            count = len(self.everyone) * len(self.shared.pairs)
            there = sum(
                self.videos.path(one.name, *pair).exists() for one in self.everyone for pair in self.shared.pairs
            )
            models = f"{len(self.everyone)} model{'s' if len(self.everyone) > 1 else ''}"
            say(f"{self.args.output}: {count} videos of {models}, {there} there already", flush=True)
        sample_missing(self.everyone, self.shared, self.settings, self.videos, self.args.registry, rank=rank, size=size)

    def finish(self, *, waits: bool = False) -> None:
        """Measures, and writes results.json and index.html; `waits` for other processes' videos first."""
        import json

        from fastvideo_core.launch.stdio import say
        from fastvideo_evaluate.command.results import as_json, measure
        from fastvideo_evaluate.command.sampling import wait_for_all
        from fastvideo_evaluate.command.videos import PAGE, RESULTS, described
        from fastvideo_evaluate.page.evaluation import write_page

        if waits:
            wait_for_all(self.everyone, self.shared, self.videos)
        if self.clips is not None:
            self.clips.add_to(self.videos, self.candidates[0].name)
        found = measure(self.candidates, self.reference, self.shared, self.videos, self.metrics, self.notes)
        about = {
            "versions": _versions(),
            "prompts": [described(prompt) for prompt in self.shared.prompts],
            "seeds": self.shared.seeds,
            "teacher": None if self.reference is None else self.reference.name,
            "clips": self.clips is not None,
            "frames": "read from the mp4 files, as metrics see them",
            "latents": "the sampler's, before they were decoded, stored in float16",
        }
        models: dict[str, dict[str, Any]] = {
            one.name: {
                "source": str(one.model.source),
                "curve": one.curve,
                "step": one.step,
                "sampling": self.videos.sampled(one.name),
            }
            for one in self.everyone
        }
        if self.clips is not None:
            sampling = self.videos.sampled(self.clips.name)
            there = {"source": str(self.clips.folder), "curve": "clips", "step": None, "sampling": sampling}
            models = {self.clips.name: there, **models}
        results = as_json(found, models, about)
        self.videos.write(RESULTS, json.dumps(_without_nan(results), indent=1))
        self.videos.write(PAGE, write_page(results, self.videos))
        for note in found.notes:
            say(f"note: {note}")
        if found.best is not None:
            say(f"best: {found.best} (in {found.wins[found.best]:.0%} of the resamples)")
        say(self.args.output / PAGE)


def _without_nan(value: Any) -> Any:
    """The same with None for each number that JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_options(args: argparse.Namespace) -> None:
    from fastvideo_core.errors import ConfigError, Problem

    least = {"seeds": 1, "num_processes": 1, "steps": 1, "against_steps": 1, "height": 1, "width": 1, "num_frames": 1}
    problems = [
        Problem(f"is {getattr(args, name)}", f"--{name.replace('_', '-')}", allowed=f"{value} or more")
        for name, value in least.items()
        if getattr(args, name) is not None and getattr(args, name) < value
    ]
    of_teacher = {"--against": args.against, "--against-steps": args.against_steps}
    of_teacher["--against-guidance-scale"] = args.against_guidance_scale
    if args.against_clips is not None:
        problems += [
            Problem("is of a teacher, and --against-clips compares with none", name, fix="leave out one of them")
            for name, given in of_teacher.items()
            if given is not None
        ]
    if problems:
        raise ConfigError(problems)


def _prompts(args: argparse.Namespace, everyone: Sequence[Candidate]) -> list[ValidationPrompt]:
    """The prompts with a seed and, where one is named, a size."""
    from dataclasses import replace

    from fastvideo_core.contracts.family import open_family
    from fastvideo_core.contracts.validator import unread_negative_prompts
    from fastvideo_core.errors import ConfigError
    from fastvideo_evaluate.command.models import sizes

    first = everyone[-1].model
    asked = list(open_family(first.family, args.registry, "sampler").read_prompts(args.prompts))
    if problems := unread_negative_prompts(asked, first.pipeline_config, first.family):
        raise ConfigError(problems)
    of_runs, found = sizes(everyone), []
    for prompt in asked:
        chosen: dict[str, Any] = {"seed": args.seed if prompt.seed is None else prompt.seed}
        for name in ("height", "width", "num_frames"):
            given, own = getattr(args, name), getattr(prompt, name)
            chosen[name] = given if given is not None else own if own is not None else of_runs.get(name)
        found.append(replace(prompt, **chosen))
    return found


def _names(args: argparse.Namespace) -> list[str] | None:
    return None if args.metrics is None else [name.strip() for name in args.metrics.split(",") if name.strip()]


def _metrics(args: argparse.Namespace) -> Mapping[str, Metric]:
    from fastvideo_core.distributed import context
    from fastvideo_core.errors import ConfigError, Problem
    from fastvideo_evaluate.metrics.find import load_metrics

    weights = dict(one.partition("=")[::2] for one in args.metric_weights)
    if wrong := [name for name, path in weights.items() if not (name and path)]:
        raise ConfigError(Problem(f"{wrong[0]!r} says no path", "--metric-weights", "NAME=PATH"))
    names = _names(args)
    if names is not None and not names:
        raise ConfigError(Problem("names no metric", "--metrics", fix="leave it out for all that need no model"))
    chosen = names if names is not None else [*default_metrics(), *weights]
    return load_metrics(chosen, args.registry, weights=weights, device=str(context.device()))


def default_metrics() -> list[str]:
    """Those of this package that need no model."""
    from fastvideo_core.registry.specs import MetricPlugin
    from fastvideo_evaluate import plugin

    specs = [spec for spec in vars(plugin).values() if isinstance(spec, MetricPlugin)]
    return [spec.name for spec in specs if ".built_in:" in spec.impl or ".compared:" in spec.impl]


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    packages = ("fastvideo-core", "fastvideo-evaluate", "torch", "numpy", "av")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


COMMAND = Command(add_arguments, run)
