"""The demo from clips to measured students: every step is one of this program's own commands, printed as it would be typed."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvideo_core.config.document import dump_yaml
from fastvideo_core.contracts.demo import DemoData, DemoRun, FamilyDemo, MethodDemo
from fastvideo_core.launch.stdio import say
from fastvideo_tools.demo.clips import CONTENTS, FEW, Content, balanced, write_clips
from fastvideo_tools.demo.workers import DemoError, Job, cores, run_jobs

TEACHER = "teacher"

Main = Callable[[Sequence[str]], int]
"""The program's entry point: arguments -> exit code."""


@dataclass(frozen=True)
class Extent:
    """How much the demo does.

    Args:
        classes: of the clips.
        clips: that are trained on.
        samples: videos of each sampler.
        many_steps: of the teacher at its best.
        guided: whether the teacher is also sampled with guidance in few steps.
        shown: numbers of the prompts that page and picture show: one or two of every colour, shape and direction.
    """

    classes: tuple[Content, ...]
    clips: int
    samples: int
    many_steps: int
    guided: bool
    shown: tuple[int, ...]

    @property
    def prompts(self) -> Mapping[int, Content]:
        """Those that are shown, by their number."""
        return {number: self.classes[number % len(self.classes)] for number in self.shown}


FULL = Extent(CONTENTS, clips=1920, samples=192, many_steps=40, guided=True, shown=(0, 9, 18, 27, 32, 45))
FAST = Extent(FEW, clips=480, samples=48, many_steps=10, guided=False, shown=(0, 1, 2, 3, 4, 5, 6, 7))


@dataclass(frozen=True)
class Recipe:
    """What is told: the family's and the method's parts, and whose teacher it starts from.

    Args:
        family, method: as in run.yaml's `recipe`.
        teacher_method: the method that trains the teacher.
        teacher_demo: its part.
    """

    family: str
    family_demo: FamilyDemo
    method: str
    method_demo: MethodDemo
    teacher_method: str
    teacher_demo: MethodDemo

    @property
    def students(self) -> tuple[DemoRun, ...]:
        """The runs that start from the teacher; none where the method is the teacher's own."""
        return () if self.method_demo.teacher is None else self.method_demo.runs

    @property
    def runs(self) -> tuple[DemoRun, ...]:
        """The teacher's, then the students'."""
        return (*self.teacher_demo.runs, *self.students)


@dataclass(frozen=True)
class Sampler:
    """One way to make the videos: a row of the table.

    Args:
        name: of its folder.
        title: for people.
        run: whose network it calls.
        steps: of the teacher's many-step sampler; None for a student's own schedule.
        guidance_scale: w; 1 is none.
        evaluations: of the network for one video.
    """

    name: str
    title: str
    run: str
    steps: int | None
    guidance_scale: float
    evaluations: int


@dataclass
class Story:
    """A demo in one folder.

    Args:
        recipe: what is told.
        out: the folder, new.
        extent: how much.
        seed: of clips, weights, training and samples.
        main: the program's entry point.
        plugins: files to hand on as --plugin.
    """

    recipe: Recipe
    out: Path
    extent: Extent
    seed: int
    main: Main
    plugins: tuple[str, ...] = ()
    spent: dict[str, float] = field(default_factory=dict)

    def tell(self) -> tuple[Sampler, ...]:
        """Makes everything; returns the samplers whose videos lie in samples/."""
        family = self.recipe.family_demo
        self._timed("clips", self._write_clips)
        words = tuple(sorted({word for content in CONTENTS for word in content.caption.split()}))
        self._say(f"an untrained pipeline of the family '{self.recipe.family}' in {self.out / 'pipeline'}")
        self._timed("pipeline", lambda: family.write_pipeline(self.out / "pipeline", words, self.seed))
        size = family.size
        encoded = ["preprocess", "--family", self.recipe.family, "--model", self._path("pipeline")]
        encoded += ["--input", self._path("clips"), "--output", self._path("latents"), "--height", str(size.height)]
        encoded += ["--width", str(size.width), "--num-frames", str(size.num_frames), "--batch-size", "32"]
        encoded += ["--samples-per-file", "480"]
        self._command("preprocess", encoded, "encode the clips, once")
        (teacher,) = self.recipe.teacher_demo.runs
        self._write_run(teacher, self.recipe.teacher_method, self._path("pipeline"))
        self._command(TEACHER, [self._path("teacher.yaml")], "train the teacher")
        if self.recipe.method_demo.data is not None:
            self._make_data(self.recipe.method_demo.data)
        return self._students_and_samples()

    # --- the parts ------------------------------------------------------------------------------------------------

    def _write_clips(self) -> None:
        count, size = self.extent.clips, self.recipe.family_demo.size
        classes = self.extent.classes
        self._say(f"{count} clips of {len(classes)} captions ({classes[0].caption!r}, ...) in {self.out / 'clips'}")
        write_clips(self.out / "clips", count, size, seed=2 * self.seed, classes=classes)
        write_clips(self.out / "held-out", self.extent.samples, size, seed=2 * self.seed + 1, classes=classes)

    def _make_data(self, data: DemoData) -> None:
        """What the students train on, where it is made of the teacher."""
        captions = [content.caption for content in balanced(data.prompts, self.extent.classes)]
        (self.out / "prompts.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
        size = self.recipe.family_demo.size
        arguments = [data.command, "--family", self.recipe.family, "--model", self._path("runs/teacher")]
        arguments += ["--prompts", self._path("prompts.txt"), "--output", self._path(data.command)]
        arguments += ["--height", str(size.height), "--width", str(size.width), "--num-frames", str(size.num_frames)]
        self._command(data.command, [*arguments, *data.options], "let the teacher make what the students learn from")

    def _write_run(self, run: DemoRun, method: str, start: str, data: str = "latents") -> None:
        size = self.recipe.family_demo.size
        content = {
            "recipe": {"family": self.recipe.family, "method": method},
            "roles": {role: {"path": start, **options} for role, options in run.roles.items()},
            "training": {
                "seed": self.seed,
                "output_dir": self._path(f"runs/{run.name}"),
                "data_path": self._path(data),
                "num_height": size.height,
                "num_width": size.width,
                "num_frames": size.num_frames,
                **run.training,
            },
            "pipeline_config": {**self.recipe.family_demo.pipeline_config, **run.pipeline_config},
            "method_config": dict(run.method_config),
            "callbacks": dict(run.callbacks),
        }
        (self.out / f"{run.name}.yaml").write_text(dump_yaml(content), encoding="utf-8")

    def _students_and_samples(self) -> tuple[Sampler, ...]:
        """Independent commands run beside each other, as many as there are cores, two at most."""
        prompts = [
            {"caption": content.caption, "seed": 1_000_000 * self.seed + number}
            for number, content in enumerate(balanced(self.extent.samples, self.extent.classes))
        ]
        (self.out / "prompts.json").write_text(json.dumps({"data": prompts}, indent=1) + "\n", encoding="utf-8")
        jobs = []
        made = self.recipe.method_demo.data
        for run in self.recipe.students:
            data = "latents" if made is None else made.command
            self._write_run(run, self.recipe.method, self._path("runs/teacher"), data)
            jobs.append(self._job(run.name, [self._path(f"{run.name}.yaml")]))
        samplers = self.samplers()
        for sampler in sorted(samplers, key=lambda one: -one.evaluations):
            after = () if sampler.run == TEACHER else (sampler.run,)
            jobs.append(self._job(f"sample-{sampler.name}", self._sample_arguments(sampler), after))
        processes = min(2, cores())
        self._say(f"train {len(self.recipe.students)} students and sample, {processes} commands at a time")
        for job in jobs:
            self._show(job.arguments)
        started = time.monotonic()
        self.spent |= run_jobs(jobs, self.out / "logs", processes=processes)
        self.spent["students and samples"] = time.monotonic() - started
        return samplers

    def samplers(self) -> tuple[Sampler, ...]:
        """Of the teacher in many steps, and in as few as the students with and without guidance; and of the students."""
        few = sorted({run.calls for run in self.recipe.students if run.calls is not None} or {4}, reverse=True)
        many = self.extent.many_steps
        found = []
        scale = self.recipe.teacher_demo.guidance_scale
        for steps in (many, *few):
            title = f"teacher, {steps} step{'s' if steps > 1 else ''}"
            found.append(Sampler(f"teacher-{steps}", title, TEACHER, steps, 1.0, steps))
            if scale != 1 and steps != many and self.extent.guided:
                guided = f"{title}, guidance {scale:g}"
                found.append(Sampler(f"teacher-{steps}-guided", guided, TEACHER, steps, scale, 2 * steps))
        for run in self.recipe.students:
            calls = run.calls or many
            title = f"student, {calls} step{'s' if calls > 1 else ''}"
            found.append(Sampler(run.name, title, run.name, None if run.calls else many, 1.0, calls))
        return tuple(found)

    def _sample_arguments(self, sampler: Sampler) -> list[str]:
        arguments = ["sample", self._path(f"runs/{sampler.run}"), "--prompts", self._path("prompts.json")]
        if sampler.steps is not None:
            arguments += ["--steps", str(sampler.steps), "--guidance-scale", f"{sampler.guidance_scale:g}"]
        return [*arguments, "--out", self._path(f"samples/{sampler.name}")]

    # --- commands -------------------------------------------------------------------------------------------------

    def _job(self, name: str, arguments: Sequence[str], after: tuple[str, ...] = ()) -> Job:
        return Job(name, (*arguments, *self._common()), after)

    def _command(self, name: str, arguments: Sequence[str], meaning: str) -> None:
        self._say(meaning)
        given = [*arguments, *self._common()]
        self._show(given)

        def run() -> None:
            status = self.main(given)
            if status != 0:
                raise DemoError(f"`fastvideo-distill {shlex.join(given)}` ended with status {status}")

        self._timed(name, run)

    def _common(self) -> list[str]:
        return [argument for path in self.plugins for argument in ("--plugin", path)]

    def _path(self, name: str) -> str:
        return str(self.out / name)

    def _say(self, text: str) -> None:
        say(f"\n# {text}", flush=True)

    def _show(self, arguments: Sequence[str]) -> None:
        say(f"$ fastvideo-distill {shlex.join(arguments)}", flush=True)

    def _timed(self, name: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        work()
        self.spent[name] = time.monotonic() - started
        say(f"  {name}: done in {self.spent[name]:.0f} s", flush=True)


def sample_path(out: Path, sampler: str, number: int) -> Path:
    """The video that a sampler made of a prompt, by their name and number."""
    return out / "samples" / sampler / f"{number:02d}.mp4"


def seconds_per_video(out: Path, sampler: str, count: int) -> float:
    """How long one video took, decoding and writing included: from when its files were written."""
    times = [sample_path(out, sampler, number).stat().st_mtime for number in range(count)]
    return (times[-1] - times[0]) / max(1, count - 1)


def configs(out: Path, recipe: Recipe) -> Mapping[str, str]:
    """The run.yaml texts of the demo by file name."""
    return {f"{run.name}.yaml": (out / f"{run.name}.yaml").read_text(encoding="utf-8") for run in recipe.runs}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
