"""A trace of a few steps, for chrome://tracing or Perfetto."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.distributed import context
from fastvideo_tools.callbacks.config import ProfilerConfig

logger = logging.getLogger(__name__)


class ProfilerCallback(Callback):
    """Records `steps` steps after the first `skip` ones of this process into `output_dir/profile/`, once.

    Only the ranks that are asked for record. Training is slower while it records, and the same otherwise.
    """

    order = 1000  # last: a recorded step begins and ends where the trainer's does

    def __init__(self, config: ProfilerConfig) -> None:
        super().__init__(config)
        self._config = config
        self._profile: profile | None = None
        self._first = 0

    @hookimpl
    def train_start(self, method: DistillMethod, start_step: int) -> None:
        self._first = start_step + self._config.skip + 1
        if self._config.skip == 0:
            self._begin()

    @hookimpl
    def step_end(self, method: DistillMethod, step: int) -> None:
        if self._profile is not None and step == self._first + self._config.steps - 1:
            self._write(method, step)
        elif self._profile is None and step == self._first - 1:
            self._begin()

    @hookimpl
    def train_end(self, method: DistillMethod, step: int) -> None:
        if self._profile is not None:
            self._write(method, step)

    @hookimpl
    def exception(self, method: DistillMethod, step: int) -> None:
        if self._profile is not None:
            self._write(method, step)

    def _begin(self) -> None:
        if context.rank() not in self._config.ranks:
            return
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(
            activities=activities,
            record_shapes=self._config.record_shapes,
            profile_memory=self._config.memory,
            with_stack=self._config.stacks,
        )
        self._profile.start()

    def _write(self, method: DistillMethod, step: int) -> None:
        assert self._profile is not None
        recorder, self._profile = self._profile, None
        recorder.stop()
        folder = Path(method.cfg.training.output_dir) / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"steps-{self._first:06d}-{step:06d}-rank-{context.rank()}.json.gz"
        recorder.export_chrome_trace(str(path))
        logger.info("profile of steps %d to %d: %s", self._first, step, path)
