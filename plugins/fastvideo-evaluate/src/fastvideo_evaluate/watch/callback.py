"""Watches over what the student makes."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastvideo_core import Callback, DistillMethod, hookimpl
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.distributed import context
from fastvideo_core.errors import FastVideoError
from fastvideo_evaluate.watch.config import QualityWatchConfig
from fastvideo_evaluate.watch.samples import Sampler, first_rows
from fastvideo_evaluate.watch.statistics import Statistics, Sums, drift

logger = logging.getLogger(__name__)

DATA_ROWS = 32


class QualityWatch(Callback):
    order = 100

    def __init__(self, config: QualityWatchConfig) -> None:
        super().__init__(config)
        self._config = config
        self._rows: list[Any] = []
        self._rounds = 0
        self._data: Sums | None = Sums()
        self._reference: Statistics | None = None

    @hookimpl
    def train_start(self, method: DistillMethod[Any], start_step: int) -> None:
        self._sampler = Sampler(method, self._config)
        training = method.cfg.training
        self._needed = math.ceil(max(self._config.prompts, DATA_ROWS) / training.train_batch_size)
        self._saves = training.training_state_checkpointing_steps

    @hookimpl
    def before_round(self, method: DistillMethod[Any], step: int, batch: Any) -> None:
        if self._rounds == self._needed:
            return
        self._rounds += 1
        size = method.cfg.training.train_batch_size
        if (missing := self._config.prompts - (self._rounds - 1) * size) > 0:
            self._rows.append(first_rows(batch, missing))
        if self._data is not None:
            try:
                self._sampler.add_data(self._data, batch)
            except FastVideoError:
                self._data = None

    @hookimpl
    def step_end(self, method: DistillMethod[Any], step: int, metrics: dict[str, Any]) -> None:
        if self._rounds < self._needed:
            return
        first = self._reference is None
        if first:
            self._make_reference(method, metrics)
        if first or step % self._config.every == 0 or (self._saves and step % self._saves == 0):
            found = self._sampler.student(method.bundle["student"], self._rows, step).result()
            measures = drift(found, self._reference)
            metrics.update({f"quality/{name}": value for name, value in measures.items()})
            metrics["quality/drift"] = max(map(abs, measures.values()))

    def _make_reference(self, method: DistillMethod[Any], metrics: dict[str, Any]) -> None:
        data = self._data.result() if all(context.gathered(self._data is not None)) else None
        if "teacher" in method.bundle:
            guidance = getattr(method.cfg.method_config, "real_score_guidance_scale", 1.0)
            self._reference = self._sampler.teacher(method.bundle["teacher"], self._rows, guidance).result()
            if data is not None:
                metrics.update({f"quality/reference_{k}": v for k, v in drift(self._reference, data).items()})
        else:
            self._reference = data
