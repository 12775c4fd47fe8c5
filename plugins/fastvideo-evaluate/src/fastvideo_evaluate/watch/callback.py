"""Watches over what the student makes while it trains."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from fastvideo_core import Callback, DistillMethod, hookimpl
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, ContractError, FastVideoError, Problem
from fastvideo_evaluate.watch import best
from fastvideo_evaluate.watch.config import BEST, STUDENT, TEACHER, QualityWatchConfig
from fastvideo_evaluate.watch.samples import Sampler, first_rows
from fastvideo_evaluate.watch.statistics import Statistics, Sums, drift, sure
from fastvideo_evaluate.watch.verdict import REFERENCE_ADVICE, advice, described, is_off, worst

logger = logging.getLogger(__name__)

DATA_ROWS = 32
"""Rows of the data, of each process, that its statistics are made of."""
_GUIDANCE = ("real_score_guidance_scale", "teacher_guidance_scale")
"""What methods call the guidance that their students learn."""
_LOOKS = 16
"""Looks that are remembered for checkpoints that are still being written."""


class QualityWatch(Callback):
    """Samples the student every so many steps and compares statistics of its latents with the teacher's.

    The first rows of the data are kept, with their text. Once they are there, the teacher is sampled for them, many steps with
    the guidance that the student learns: the reference. Without a teacher it is the data. The student is sampled from the same
    noise; its raw weights are, not their averages. All ranks sample rows of their own, and their statistics are joined, so
    that all say the same. What the watch draws comes from streams of its own, made anew for every look.
    """

    order = 100  # before early_stop, which may follow its metrics

    def __init__(self, config: QualityWatchConfig) -> None:
        super().__init__(config)
        self._config = config
        self._rows: list[Any] = []
        self._seen = 0  # samples
        self._data: Sums | None = Sums()
        self._reference: Statistics | None = None
        self._best = math.inf
        self._looks: dict[str, float] = {}
        self._warnings = 0
        self._shared, self._guided = 1, 1.0

    # --- hooks ----------------------------------------------------------------------------------------------------

    @hookimpl
    def train_start(self, method: DistillMethod[Any], start_step: int) -> None:
        training = method.cfg.training
        needed = ["prepare_batch", "predict_x0", "shift_and_clamp_timestep"]
        needed += ["predict_x0_guided"] if TEACHER in method.bundle else []
        if missing := [name for name in needed if not hasattr(method.adapter, name)]:
            found = f"the family's adapter has no {', '.join(missing)}, which the watch samples with"
            raise ContractError(Problem(found, "callbacks.quality_watch", fix="remove quality_watch"))
        self._sampler = Sampler(method, self._config)
        self._shared, self._guided = training.sequence_parallel, self._guidance(method)
        self._output_dir = Path(training.output_dir)
        if context.is_main_process():
            best.put_back(self._output_dir)

    @hookimpl
    def before_round(self, method: DistillMethod[Any], step: int, batch: Any) -> None:
        if self._reference is not None:
            return
        missing = self._config.prompts - self._seen
        self._seen += method.cfg.training.train_batch_size
        if missing > 0:
            self._rows.append(first_rows(batch, missing))
        if self._data is not None:
            try:
                self._sampler.add_data(self._data, batch)
            except FastVideoError:  # prompts without clips
                self._data = None

    @hookimpl
    def before_optimizer_step(self, method: DistillMethod[Any], step: int) -> None:
        for role, factor in self._config.lower_rate.items():
            handle = method.bundle[role]
            for name, optimizer in handle.optimizers.items():
                groups, scheduler = optimizer.param_groups, handle.lr_schedulers.get(name)
                own = [group.setdefault("initial_lr", group["lr"]) for group in groups]
                rates = own if scheduler is None else scheduler.get_last_lr()  # of the schedule, without the factor
                for group, rate in zip(groups, rates, strict=True):
                    group["lr"] = rate * factor**self._warnings

    @hookimpl
    def step_end(self, method: DistillMethod[Any], step: int, metrics: dict[str, Any]) -> None:
        if self._reference is None and self._seen < max(self._config.prompts, DATA_ROWS):
            return
        reference = self._reference or self._make_reference(method, step, metrics)
        training = method.cfg.training
        saves = training.training_state_checkpointing_steps
        due = step % self._config.every == 0 or step == training.max_train_steps or (saves and step % saves == 0)
        if due or reference is not self._reference:
            self._reference, self._data = reference, None
            self._look(method, step, reference, metrics)

    @hookimpl
    def stop_requested(self, step: int) -> bool:
        return 0 < self._config.stop_after <= self._warnings

    @hookimpl
    def checkpoint_saved(self, path: Path, step: int) -> None:
        drifted = self._looks.get(
            str(step), math.inf
        )  # of one that was not looked at, as when a signal asked for it, nothing is known
        if self._config.keep_best and drifted < best.kept_drift(path.parent):
            try:
                best.keep(path, step, drifted)
            except OSError as error:
                logger.warning("%s could not be kept as %s: %s", path, BEST, error.strerror or error)

    # --- looks ----------------------------------------------------------------------------------------------------

    def _look(self, method: DistillMethod[Any], step: int, reference: Statistics, metrics: dict[str, Any]) -> None:
        found = self._sampler.student(method.bundle[STUDENT], self._rows, step).result(self._shared)
        measures = drift(found, reference)
        _, drifted = worst(measures)
        off = is_off(drifted, self._best, self._config.threshold)
        self._best = min(self._best, drifted)
        self._looks = dict([*self._looks.items(), (str(step), drifted)][-_LOOKS:])
        self._warnings += off
        metrics.update({f"quality/{name}": value for name, value in measures.items()})
        metrics |= {"quality/drift": drifted, "quality/warnings": float(self._warnings)}
        if off and context.is_main_process():
            whose = "the teacher's samples" if TEACHER in method.bundle else "the data"
            what = described(measures, whose)
            logger.warning(
                "step %d: quality_watch: of the student's samples %s; %s", step, what, advice(method.cfg.roles)
            )

    def _make_reference(self, method: DistillMethod[Any], step: int, metrics: dict[str, Any]) -> Statistics:
        has_data = all(context.gathered(self._data is not None))
        data = self._data.result(self._shared) if self._data is not None and has_data else None
        if TEACHER not in method.bundle:
            if data is None:
                found = f"there is no role '{TEACHER}', and the data has no clips: nothing to compare the student with"
                raise ConfigError(Problem(found, "callbacks.quality_watch", fix="remove quality_watch"))
            return data
        reference = self._sampler.teacher(method.bundle[TEACHER], self._rows, self._guided).result(self._shared)
        if data is not None:
            measures = drift(reference, data)
            metrics.update({f"quality/reference_{name}": value for name, value in measures.items()})
            beyond_chance = sure(reference, data, self._config.prompts * method.mesh.data_size)
            name, amount = worst(beyond_chance)
            off = is_off(amount, 0.0, self._config.reference_threshold)
            metrics["quality/reference_warnings"] = float(off)
            if off and context.is_main_process():
                text = "step %d: quality_watch: of the teacher's own samples %s, and the student learns that; %s"
                logger.warning(text, step, described({name: measures[name]}, "the data"), REFERENCE_ADVICE)
        return reference

    def _guidance(self, method: DistillMethod[Any]) -> float:
        if self._config.guidance_scale is not None:
            return self._config.guidance_scale
        scales = (getattr(method.cfg.method_config, name, None) for name in _GUIDANCE)
        return next((float(scale) for scale in scales if scale is not None), 1.0)

    # --- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The rows and the sums of the data are each process's own; all else is the same on all of them."""
        return {
            "rows": self._rows,
            "seen": self._seen,
            "guided": self._guided,
            "data": None if self._data is None else self._data.state_dict(),
            "reference": None if self._reference is None else self._reference.state_dict(),
            "best": self._best,
            "looks": self._looks,
            "warnings": self._warnings,
            "options": self._options(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows, self._seen = state["rows"], state["seen"]
        self._data = None if state["data"] is None else Sums(state["data"])
        self._reference = None if state["reference"] is None else Statistics(**state["reference"])
        self._best, self._looks, self._warnings = state["best"], state["looks"], state["warnings"]
        if self._reference is not None and state["guided"] != self._guided:
            text = "quality_watch: the teacher is sampled anew, with guidance %g instead of %g: drift is another from here on"
            logger.warning(text, self._guided, state["guided"])
            self._reference, self._best = None, math.inf

    def misfits(self, state: dict[str, Any]) -> list[Problem]:
        """A reference of other samples."""
        where, problems = "callbacks.quality_watch", []
        for key, then in state["options"].items():
            if (now := self._options()[key]) != then:
                found = f"the reference in the checkpoint was made with {key} {then}; this run has {now}"
                fix = f"set it to {then}, or training.resume_without_callbacks: [quality_watch] to make a new one"
                problems.append(Problem(found, f"{where}.{key}", fix=fix))
        return problems

    def _options(self) -> dict[str, Any]:
        keys = ("prompts", "seeds", "steps", "reference_steps", "guidance_scale")
        return {key: getattr(self._config, key) for key in keys}
