"""Checks that a run's settings reach the method: those of optimizers, caption dropout, and the method's own options."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.errors import UserError
from fastvideo_core.training.trainer import endless
from fastvideo_testing.compare import changed
from fastvideo_testing.method_suite import Gradients, MethodSuite, any_differs
from fastvideo_testing.runs import build_run
from fastvideo_testing.steps import take_step, weights
from fastvideo_testing.suite import needs

_BY_CORE = "build_optimizer(handle, cfg) of fastvideo_core.optim does so"


class SettingsChecks(MethodSuite):
    """What is written in run.yaml has its effect, or is refused."""

    # --- optimizers -------------------------------------------------------------------------------------------------

    @needs("optimizer")
    def test_optimizers_have_the_settings_of_the_run(self, tmp_path: Path) -> None:
        now = self.runtime(tmp_path / "settings").training_args
        ends = self._ends(tmp_path / "as-it-is")
        others: dict[str, Any] = {
            "learning_rate": 2 * now.learning_rate + 1e-3,
            "betas": [0.5 * beta for beta in now.betas],
            "weight_decay": now.weight_decay + 1.0,
            "adam_epsilon": now.adam_epsilon + 1.0,
            "optimizer": "adamw" if now.optimizer == "muon" else "muon",
        }
        for name, value in others.items():
            try:
                after = self._ends(tmp_path / name, **{name: value})
            except UserError:
                continue
            for role in self.trainable:
                assert changed(ends[role], after[role]), (
                    f"`training.{name}: {value}` changes nothing in what becomes of {role}: give its optimizer the run's "
                    f"settings, as {_BY_CORE}"
                )

    @needs("optimizer")
    def test_roles_may_have_settings_of_their_own(self, tmp_path: Path) -> None:
        for role in self.trainable:
            run = self.run(tmp_path)
            run["roles"][role] |= {"learning_rate": 0.0, "max_grad_norm": 0.125}
            try:
                runtime = build_run(tmp_path, run)
            except UserError:
                continue
            method = runtime.method
            before = weights(method.bundle[role])
            list(self.records(runtime))
            assert not changed(before, weights(method.bundle[role])), (
                f"`roles.{role}.learning_rate: 0` does not hold {role} still: give its optimizer the role's own settings, as "
                f"{_BY_CORE}"
            )
            for optimizer in method.bundle[role].optimizers.values():
                assert method.max_grad_norm(optimizer) == 0.125, (
                    f"`roles.{role}.max_grad_norm` does not clip {role}'s gradients: max_grad_norm(optimizer) gives "
                    f"{method.max_grad_norm(optimizer)}"
                )

    @needs("optimizer")
    def test_gradients_are_clipped_as_the_run_says(self, tmp_path: Path) -> None:
        method = self.runtime(tmp_path, max_grad_norm=0.25).method
        for role in self.trainable:
            for optimizer in method.bundle[role].optimizers.values():
                found = method.max_grad_norm(optimizer)
                assert found == 0.25, (
                    f"`training.max_grad_norm: 0.25` does not clip the gradients of {role}: max_grad_norm(optimizer) gives "
                    f"{found}; leave it as it is, or ask super()"
                )

    @needs("optimizer")
    def test_learning_rates_follow_the_schedule(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path, lr_scheduler="linear", min_lr_ratio=0.0)
        method, batches = runtime.method, endless(runtime.dataloader)
        first = _rates(runtime, self.trainable)
        advice = (
            "write build_lr_scheduler(optimizer, cfg, role, num_updates=...) into handle.lr_schedulers, where num_updates is how "
            "often the role is updated in the whole run, and let optimizers_schedulers_step step it once with its optimizer"
        )
        method.on_train_start()
        for step in range(1, self.steps + 1):
            due = {handle.name for handle in method.due_roles(step)}
            now = _rates(runtime, self.trainable)
            for (role, name), rate in now.items():
                assert rate > 0 or role not in due, (
                    f"with `lr_scheduler: linear` the learning rate of {role} is 0 in step {step} of {self.steps} already, in "
                    f"which it is updated ({name}): {advice}"
                )
            take_step(method, [next(batches)], step)
        for (role, name), rate in _rates(runtime, self.trainable).items():
            assert rate < 0.4 * first[role, name], (
                f"with `lr_scheduler: linear` the learning rate of {role} goes from {first[role, name]:.3g} to {rate:.3g} in the "
                f"whole run, not to 0 ({name}): {advice}"
            )

    # --- roles ------------------------------------------------------------------------------------------------------

    def test_roles_that_are_not_as_it_needs_them_are_refused(self, tmp_path: Path) -> None:
        for role, settings in self.run(tmp_path)["roles"].items():
            run, wanted = self.run(tmp_path), settings["trainable"]
            run["roles"][role]["trainable"] = not wanted
            what = f"with `roles.{role}.trainable: {str(not wanted).lower()}`"
            fix = "refuse it in the config's check_run, with the key and what it must be"
            try:
                runtime = build_run(tmp_path, run)
            except UserError as error:
                said = str(error)
            except Exception as error:
                raise AssertionError(f"{what} a run ends in {type(error).__name__}: {error}; {fix}") from error
            else:
                said = ""
            if said:
                assert role in said, f"{what} the run is refused, but the message does not name {role}:\n{said}"
                continue
            before = weights(runtime.method.bundle[role])
            try:
                list(self.records(runtime))
            except Exception as error:
                raise AssertionError(f"{what} training ends in {type(error).__name__}: {error}; {fix}") from error
            trained = bool(changed(before, weights(runtime.method.bundle[role])))
            assert trained is not wanted, (
                f"{what} a run trains all the same, and {role} {'is trained' if trained else 'never is'}; {fix}"
            )

    # --- captions ---------------------------------------------------------------------------------------------------

    @needs("dropout")
    def test_captions_are_dropped_as_the_run_says(self, tmp_path: Path) -> None:
        kept = self.gradients_of(self.still(tmp_path / "kept", training_cfg_rate=0.0))
        try:
            dropped = self.gradients_of(self.still(tmp_path / "dropped", training_cfg_rate=1.0))
        except UserError:
            return
        assert any_differs(kept, dropped), (
            "`training.training_cfg_rate: 1` changes nothing, though it drops every caption: take the batch from "
            "self.prepare_batch(raw_batch), not from the adapter, or refuse the option in check_run"
        )

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _ends(self, folder: Path, **training: Any) -> Gradients:
        runtime = self.runtime(folder, **training)
        list(self.records(runtime))
        return {handle.name: weights(handle) for handle in runtime.method.bundle}


def _rates(runtime: DistillRuntime, roles: Iterable[str]) -> dict[tuple[str, str], float]:
    """The learning rate of every optimizer of the roles, by role and name."""
    bundle = runtime.method.bundle
    return {
        (role, name): max(float(group["lr"]) for group in optimizer.param_groups)
        for role in roles
        for name, optimizer in bundle[role].optimizers.items()
    }
