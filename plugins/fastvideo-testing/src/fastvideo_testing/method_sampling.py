"""Checks that a student is trained as it is sampled, and that validations sample it so."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path

from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.errors import UserError
from fastvideo_core.training.trainer import endless
from fastvideo_testing.method_suite import MethodSuite
from fastvideo_testing.recorded_calls import RecordedCalls
from fastvideo_testing.steps import take_step
from fastvideo_testing.validations import Requests

_FEW = 8
_ENOUGH_STEPS, _MOST_STEPS = 32, 200
"""How many are looked at where no level is missing, and where one is."""


class SamplingChecks(MethodSuite):
    """What becomes of the student: few steps or many, at which noise levels, in which videos."""

    def test_the_student_is_trained_at_the_levels_of_its_schedule(self, tmp_path: Path) -> None:
        runtime = self.still(tmp_path, max_train_steps=_MOST_STEPS)
        method, batches = runtime.method, endless(runtime.dataloader)
        schedule = method.student_schedule(runtime.cfg.method_config, method.adapter.shift_and_clamp_timestep)
        recorded, levels = RecordedCalls.of(method), set[float]()
        near = 0.02 * method.adapter.num_train_timesteps
        missing = [] if schedule is None else list(schedule.timesteps)
        method.on_train_start()
        for step in range(1, _MOST_STEPS + 1):
            recorded.clear()
            take_step(method, [next(batches)], step)
            for call in recorded.calls:
                if call.trains and call.role.name == self.student:
                    levels |= {round(level, 2) for level in call.t.flatten().tolist()}
            missing = [level for level in missing if all(abs(level - other) > near for other in levels)]
            if levels and not missing and (len(levels) > _FEW or step >= _ENOUGH_STEPS):
                break
        if not levels:
            return
        found = _listed(sorted(levels, reverse=True)[:_FEW])
        if schedule is None:
            assert len(levels) > _FEW, (
                f"{self.student} is trained at the levels {found} alone, and its student_schedule gives None, so that `sample` "
                "and validation call it at all others: let student_schedule give these few steps"
            )
            return
        assert not missing, (
            f"{self.student} is never trained at {_listed(missing)}, where its student_schedule has it "
            f"sampled, but at {found}: take the levels of training from student_schedule, its shift (`warp`) included"
        )
        if len(levels) <= _FEW:
            other = [level for level in levels if all(abs(level - own) > near for own in schedule.timesteps)]
            assert not other, (
                f"{self.student} is trained at {_listed(other)} too, where its student_schedule never "
                "has it sampled: take the levels of training from student_schedule"
            )

    def test_validations_sample_the_student(self, tmp_path: Path) -> None:
        try:
            runtime = self.runtime(tmp_path, validation_sampling_steps=[3, 7], validation_guidance_scale=[1.0, 2.0])
        except UserError:  # of a student that is not guided, for example
            runtime = self.runtime(tmp_path)
        method = runtime.method
        if type(method).log_validation is DistillMethod.log_validation:
            return
        try:
            method.log_validation(5)
        except AttributeError as error:
            said = f"without a validator log_validation ends in {error}: self.validator is None where nothing can be sampled"
            raise AssertionError(said) from error
        method.validator = requests = Requests()
        method.log_validation(5)
        of_student = [
            request
            for _, request in requests.made
            if self.student in (request.sample_handle.name, request.sample_handle.copy_of)
        ]
        sampled = ", ".join(request.sample_handle.name for _, request in requests.made)
        assert of_student, (
            f"log_validation samples {sampled or 'nothing'}, and {self.student} "
            "never: hand a request with sample_handle=self.student to self.validator.log_validation(iteration, request)"
        )
        steps = {step for step, _ in requests.made}
        assert steps == {5}, (
            f"log_validation(5) reports videos of step {', '.join(map(str, steps))}; pass the iteration on"
        )
        for _, request in requests.made:
            assert request.output_dir == method.validation_dir(5), (
                f"log_validation(5) writes videos to {request.output_dir}, not to self.validation_dir(iteration)"
            )
        names = [(request.label, request.sample_handle.name) for _, request in requests.made]
        labels = [label for label, _ in names]
        assert len(set(labels)) == len(labels), (
            f"log_validation makes several requests of the same label ({', '.join(labels)}): their videos overwrite each other"
        )
        schedule = method.student_schedule(runtime.cfg.method_config, method.adapter.shift_and_clamp_timestep)
        for request in of_student:
            found = request.sampling_timesteps
            expected = None if schedule is None else schedule.timesteps
            assert found == expected, (
                f"validations sample {self.student} at {found or 'many steps'}, and its student_schedule says "
                f"{expected or 'many steps'}: pass sampling_timesteps=self.schedule.timesteps"
            )
        if schedule is None:
            training = runtime.training_args
            wanted = set(product(training.validation_sampling_steps, training.validation_guidance_scale))
            made = {(request.sampling_steps, request.guidance_scale) for request in of_student}
            assert made == wanted, (
                "validations do not follow training.validation_sampling_steps and validation_guidance_scale: (steps, guidance) "
                f"are {sorted(made, key=str)}, not {sorted(wanted)}; take self.many_step_requests(handle, iteration)"
            )


def _listed(levels: Iterable[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)
