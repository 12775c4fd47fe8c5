"""What methods of few-step students share: the calls of the student's schedule at which its network is trained."""

from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.method import DistillMethod, Needs
from fastvideo_core.contracts.noise_ranges import is_trained_at
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, ContractError, Problem


class StudentSteps:
    """The calls of a student's schedule that are trained, and draws among them.

    `indices` are those of the calls in the schedule, in order. Random streams and adapter are the method's; `key` is the option
    of `method_config` that names the schedule, for messages. Raises ContractError where the family's noise axis is another one
    than the schedule's, ConfigError where no call is trained.
    """

    def __init__(self, method: DistillMethod, student: RoleHandle, schedule: FewStepSchedule, *, key: str) -> None:
        adapter, length = method.adapter, schedule.num_train_timesteps
        if adapter.num_train_timesteps != length:
            where = f"family '{student.family}', {type(adapter).__name__}"
            found = f"num_train_timesteps is {adapter.num_train_timesteps}; {key} counts on {length}"
            raise ContractError(Problem(found, where, fix=f"let the family's primitives take timesteps in 0..{length}"))
        self.indices = [n for n, t in enumerate(schedule.timesteps) if is_trained_at(adapter, student, t)]
        if not self.indices:
            found = f"the student's network is trained at none of its timesteps {list(schedule.timesteps)}"
            raise ConfigError(Problem(found, f"method_config.{key}", fix="add one that it is trained at"))
        self._method, self._student = method, student
        self._levels = torch.tensor(schedule.timesteps, dtype=torch.float32, device=context.device())

    def draw(self, size: int, *, iteration: int, stream: str, shared: str | None = None) -> Tensor:
        """A timestep of these calls for each sample [size], uniform; arguments as `DistillMethod.draw_in_one_range`."""
        levels = self._levels[self.indices]

        def draw(count: int, generator: torch.Generator) -> Tensor:
            drawn = torch.randint(len(self.indices), (count,), generator=generator, device=generator.device)
            return levels[drawn.to(levels.device)]

        return self._method.draw_in_one_range(
            (self._student,), draw, size, iteration=iteration, stream=stream, shared=shared
        )

    def numbers(self, t: Tensor) -> Tensor:
        """Which call of the schedule each of these timesteps [B] belongs to, counted from 1."""
        return (self._levels >= t[:, None]).sum(1)


class FewStepMethod(DistillMethod[Needs]):
    """A method whose student is sampled in few steps, and which may show its teacher beside it.

    Subclasses set `student` and `schedule`; `shown_teacher` is sampled in many steps at the first validation of a run.
    """

    student: RoleHandle
    schedule: FewStepSchedule
    shown_teacher: RoleHandle | None = None
    _teacher_was_sampled = False

    def log_validation(self, iteration: int) -> None:
        if self.validator is None:
            return
        request = self.few_step_request(self.student, self.schedule, iteration, label="student")
        self.validator.log_validation(iteration, request)
        if self.shown_teacher is not None and not self._teacher_was_sampled:
            for reference in self.many_step_requests(self.shown_teacher, iteration, label="teacher"):
                self.validator.log_validation(iteration, reference)
            self._teacher_was_sampled = True

    def checkpoint_state(self) -> dict[str, Any]:
        return {"teacher_was_sampled": self._teacher_was_sampled}

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        self._teacher_was_sampled = bool(state["teacher_was_sampled"])
