"""The conformance suite of methods: subclass it in a method's own tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import safetensors.torch
import torch
from torch import Tensor

from fastvideo_core.contracts.adapter_check import check_adapter
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.errors import ContractError, UserError
from fastvideo_core.registry import Kind, MethodPlugin, register_method
from fastvideo_core.training.trainer import DistillTrainer, endless
from fastvideo_testing.bare import AttentionRecorder, BareAdapter, OnlyDeclared, members_needed
from fastvideo_testing.compare import assert_close, changed, loudest
from fastvideo_testing.draws import PerSampleDraws
from fastvideo_testing.ranks import run_ranks
from fastvideo_testing.runs import build_run, toy_world
from fastvideo_testing.samples import sample_distance
from fastvideo_testing.steps import take_step, weights
from fastvideo_testing.suite import PluginSuite, needs
from fastvideo_testing.toy import EXACT

_BATCH = 4
_SHORT = "short-of-one"
_STRANGER = "stranger"


class MethodPluginSuite(PluginSuite):
    """What every method must do, on the toy family (no model family is needed).

        class TestMyMethod(MethodPluginSuite):
            plugin = "my-method"
            trainable = ("student",)

    Attributes:
        config: the `method_config` that is tested.
        family: of the suite's runs: the toy family, or one built on it (ToyAdapter, ToyConfig) that has further primitives.
        trainable: the roles that train; the others are frozen.
        optional_roles: those of the spec's optional roles that the runs of the suite have.
        training: options of `training` that the method needs beside the suite's.
        pipeline_config: options of the family that the method needs.
        steps: how many steps the checks take; every trainable role must be due in one of them.
        student: the trained role that makes samples in the end.
        learning_steps: of the check that the student learns; at most a few seconds' worth.
    """

    kind: ClassVar[Kind] = "methods"
    capabilities: ClassVar[Mapping[str, str]] = {
        "learning": "on toy data with a perfect teacher the student's samples come nearer to the data",
        "accumulation": "several rounds give the gradients of one larger batch",
        "ranks": "several processes give the gradients of one",
        "resume": "a resumed run ends with the weights of one that was not interrupted",
    }

    family: ClassVar[str] = "toy"
    trainable: ClassVar[tuple[str, ...]] = ("student",)
    optional_roles: ClassVar[tuple[str, ...]] = ()
    training: ClassVar[Mapping[str, Any]] = {}
    pipeline_config: ClassVar[Mapping[str, Any]] = {}
    steps: ClassVar[int] = 4
    student: ClassVar[str] = "student"
    learning_steps: ClassVar[int] = 400

    # --- runs -----------------------------------------------------------------------------------------------------

    def section(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"method_config": dict(values)}

    def run(self, folder: Path, **training: Any) -> dict[str, Any]:
        _, plugin = self.found()
        assert isinstance(plugin.spec, MethodPlugin)
        roles = (*plugin.spec.roles, *self.optional_roles)
        unknown = [role for role in self.trainable if role not in roles]
        assert not unknown, f"`trainable` names {', '.join(unknown)}; the roles are {', '.join(roles)}"
        return {
            "recipe": {"family": self.family, "method": self.plugin},
            "roles": {role: {"path": f"toy/{role}", "trainable": role in self.trainable} for role in roles},
            "training": {
                "output_dir": str(folder / "out"),
                "max_train_steps": self.steps,
                "train_batch_size": _BATCH,
                "learning_rate": 1e-3,
                **self.training,
                **training,
            },
            "pipeline_config": dict(self.pipeline_config),
            **self.section(self.config),
        }

    def runtime(self, folder: Path, **training: Any) -> DistillRuntime:
        """The method, built for a run."""
        folder.mkdir(parents=True, exist_ok=True)
        return build_run(folder, self.run(folder, **training))

    def _take_steps(self, runtime: DistillRuntime) -> None:
        runtime.method.on_train_start()
        batches = endless(runtime.dataloader)
        for step in range(1, self.steps + 1):
            take_step(runtime.method, [next(batches)], step)

    # --- what it declares -----------------------------------------------------------------------------------------

    def test_it_declares_every_primitive_that_it_uses(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        method = runtime.method
        method.adapter = OnlyDeclared(method.adapter, type(method), method.cfg)
        self._take_steps(runtime)

    def test_a_family_without_its_primitives_is_refused_before_training(self, tmp_path: Path) -> None:
        method = self.runtime(tmp_path).method
        declared = members_needed(type(method), method.cfg)
        try:
            check_adapter(BareAdapter(), type(method).needs(method.cfg), method=self.plugin, family="bare")
        except ContractError as error:
            missing = [name for name in declared if f"'{name}'" not in str(error)]
            assert not missing, f"the error does not name {', '.join(missing)}"
        else:
            assert not declared, f"a family without {', '.join(declared)} is accepted"

    def test_a_missing_role_is_refused_by_name(self, tmp_path: Path) -> None:
        registry, plugin = self.found()
        assert isinstance(plugin.spec, MethodPlugin)
        config, impl = registry.config_class(plugin), registry.resolve(plugin, "impl")
        for role in plugin.spec.roles:
            run = self.run(tmp_path)
            run["recipe"] = {**run["recipe"], "method": _SHORT}
            trainable = run["roles"].pop(role)["trainable"]
            run["roles"][_STRANGER] = {"path": f"toy/{_STRANGER}", "trainable": trainable}
            register_method(_SHORT, config=config, roles=tuple(run["roles"]))(cast("type", impl))
            try:
                self._take_steps(build_run(tmp_path, run))
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            else:
                raise AssertionError(
                    f"a run without the role {role} trains all the same, so that its network is loaded for nothing: leave "
                    f"it out of the spec's `roles`, or take it from the bundle"
                )
            assert role in said, f"without the role {role} a run ends in an error that does not name it:\n{said}"

    def test_the_kind_of_attention_is_passed_on_or_refused(self, tmp_path: Path) -> None:
        if "attn_kind" not in self.config_class().model_fields:
            return
        run = {**self.run(tmp_path), **self.section({**self.config, "attn_kind": "vsa"})}
        try:
            runtime = build_run(tmp_path, run)
        except UserError:
            return
        recorder = AttentionRecorder(runtime.method.adapter)
        runtime.method.adapter = recorder
        self._take_steps(runtime)
        assert "vsa" in recorder.kinds or not recorder.kinds, (
            "with `attn_kind: vsa` every trained network is called as without it: pass attn_kind to the adapter's "
            "predict_x0 and predict_noise, or refuse the option in the config's check_run"
        )

    # --- one step ---------------------------------------------------------------------------------------------------

    def test_losses_are_finite_scalars(self, tmp_path: Path) -> None:
        for record in self._records(self.runtime(tmp_path)):
            assert record.losses, f"step {record.step} gave no loss"

    def test_metrics_hold_no_graph(self, tmp_path: Path) -> None:
        for record in self._records(self.runtime(tmp_path)):
            for metrics in record.metrics:
                for name, value in metrics.items():
                    assert not (isinstance(value, Tensor) and value.requires_grad), (
                        f"the metric {name} still has its graph, which would keep the step's activations alive; "
                        "detach() it"
                    )

    def test_gradients_reach_the_due_roles_only(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        never = set(self.trainable)
        for record in self._records(runtime):
            due = {handle.name for handle in runtime.method.due_roles(record.step)}
            for handle in runtime.method.bundle:
                gradients = record.gradients[handle.name]
                found = loudest(gradients)
                if handle.name in due:
                    assert gradients, f"step {record.step} updates {handle.name}, but it has no gradient"
                    assert found > 0, f"step {record.step} updates {handle.name}, but all its gradients are 0"
                else:
                    reason = "is frozen" if not handle.trainable else "is not due (due_roles)"
                    assert found == 0, (
                        f"step {record.step} leaves a gradient (largest {found:.3g}) in {handle.name}, which {reason}: "
                        "compute it under torch.no_grad(), or detach what goes into it"
                    )
            never -= due
        assert not never, f"{', '.join(sorted(never))} was never due in {self.steps} steps; raise `steps`, or train it"

    def test_an_update_changes_the_due_roles_and_nothing_else(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        method = runtime.method
        before = {handle.name: weights(handle) for handle in method.bundle}
        for record in self._records(runtime):
            due = {handle.name for handle in method.due_roles(record.step)}
            for handle in method.bundle:
                after = weights(handle)
                moved = changed(before[handle.name], after)
                if handle.name in due:
                    assert moved, f"step {record.step} updates {handle.name}, but not one of its weights changed"
                elif handle.trainable or not handle.is_saved:
                    why = "is frozen (one that the method changes is `saved`)" if not handle.trainable else "is not due"
                    assert not moved, f"step {record.step} changed {moved[0]} of {handle.name}, which {why}"
                before[handle.name] = after
                left = [name for name, p in handle.named_parameters() if p.grad is not None]
                assert not left, (
                    f"after step {record.step} {handle.name} still has the gradient of {left[0]}: it would be added to "
                    "the next step's; optimizers_zero_grad must drop ALL gradients"
                )

    def test_random_numbers_come_from_the_method_s_streams(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        batches = endless(runtime.dataloader)
        runtime.method.on_train_start()
        for step in range(1, self.steps + 1):
            raw = next(batches)
            before = torch.get_rng_state()
            take_step(runtime.method, [raw], step)
            assert torch.equal(before, torch.get_rng_state()), (
                f"step {step} drew from torch's global generator, which other code shares and which differs between "
                "processes by accident; pass generator=self.rng.local(NAME), or self.rng.shared(NAME) for what must be "
                "equal on all"
            )

    def test_equal_runs_are_equal(self, tmp_path: Path) -> None:
        first = self._train(self.runtime(tmp_path / "first"), self.steps)
        second = self._train(self.runtime(tmp_path / "second"), self.steps)
        self._compare_ends("two runs with the same seed", first, second)

    # --- does it learn? -----------------------------------------------------------------------------------------------

    @needs("learning")
    def test_the_student_comes_nearer_to_the_data(self, tmp_path: Path) -> None:
        steps = self.learning_steps
        run = self.run(tmp_path, max_train_steps=steps, train_batch_size=64, learning_rate=5e-3, logging_steps=steps)
        for name, role in run["roles"].items():
            role["path"] = f"toy/{name}" if name in self.trainable else EXACT
        run["pipeline_config"] |= {"num_samples": 4096, "width": 32}
        runtime = build_run(tmp_path, run)
        before = sample_distance(runtime, self.student)
        self._train(runtime, steps)
        after = sample_distance(runtime, self.student)
        assert after < before / 3, (
            f"after {steps} steps with a perfect teacher the samples of {self.student} are {after:.2f} away from the "
            f"data's distribution (squared 2-Wasserstein distance), and they began at {before:.2f}: is a sign wrong in "
            "the loss, or is the target not what the student should become?"
        )

    # --- accumulation, processes, resuming ----------------------------------------------------------------------------

    @needs("accumulation")
    def test_rounds_accumulate_to_one_large_batch(self, tmp_path: Path) -> None:
        half = _BATCH // 2
        whole = self._still(tmp_path / "whole", train_batch_size=_BATCH)
        rounds = self._still(tmp_path / "rounds", train_batch_size=half, gradient_accumulation_steps=2)
        large, small = endless(whole.dataloader), endless(rounds.dataloader)
        for step in range(1, self.steps + 1):
            with PerSampleDraws(whole.method, _BATCH) as draws:
                one = take_step(whole.method, [next(large)], step, draws=draws, first_samples=[0])
            with PerSampleDraws(rounds.method, half) as draws:
                pair = [next(small), next(small)]
                two = take_step(rounds.method, pair, step, draws=draws, first_samples=[0, half])
            self._compare_gradients(
                f"step {step}: two accumulation rounds of {half} samples against one of {_BATCH}",
                one.gradients,
                two.gradients,
                "divide the loss by grad_accum_rounds in `backward`, average over samples, and keep what an iteration "
                "decides (exit steps, say) the same in all its rounds",
            )

    @needs("ranks")
    def test_two_processes_give_the_gradients_of_one(self, tmp_path: Path) -> None:
        half = _BATCH // 2
        one = self._still(tmp_path / "one", train_batch_size=_BATCH)
        batches = endless(one.dataloader)
        expected = {}
        with PerSampleDraws(one.method, _BATCH) as draws:
            for step in range(1, self.steps + 1):
                record = take_step(one.method, [next(batches)], step, draws=draws, first_samples=[0])
                expected[step] = record.gradients
        (tmp_path / "two").mkdir()
        arguments = {
            "folder": str(tmp_path / "two"),
            "run": json.loads(json.dumps(self.run(tmp_path / "two", train_batch_size=half, learning_rate=0.0))),
            "files": self.file_arguments(),
            "steps": self.steps,
        }
        run_ranks("fastvideo_testing.methods:write_gradients", arguments, world_size=2)
        for step, gradients in expected.items():
            stored = safetensors.torch.load_file(tmp_path / "two" / f"gradients-{step}.safetensors")
            found = {
                role: {name.partition("/")[2]: tensor for name, tensor in stored.items() if name.startswith(f"{role}/")}
                for role in gradients
            }
            self._compare_gradients(
                f"step {step}: two processes of {half} samples against one of {_BATCH}",
                gradients,
                found,
                "losses must be means over samples, and what steers the program must come from self.rng.shared(NAME)",
            )

    @needs("resume")
    def test_a_resumed_run_ends_like_one_that_was_never_interrupted(self, tmp_path: Path) -> None:
        total = 2 * self.steps
        straight = self._train(self.runtime(tmp_path / "straight", max_train_steps=total), total)
        folder = tmp_path / "resumed"
        self._train(self.runtime(folder, max_train_steps=total), self.steps)
        again = self.runtime(folder, max_train_steps=total, resume_from_checkpoint="latest")
        assert again.start_step == self.steps
        resumed = self._train(again, total)
        self._compare_ends(
            f"{self.steps} steps, a resume and {self.steps} more steps against {total} steps at once "
            "(checkpoint_state must keep what the algorithm remembers between steps)",
            straight,
            resumed,
        )

    # --- helpers --------------------------------------------------------------------------------------------------------

    def _records(self, runtime: DistillRuntime) -> Any:
        """The suite's steps, one after another."""
        method, batches = runtime.method, endless(runtime.dataloader)
        method.on_train_start()
        for step in range(1, self.steps + 1):
            yield take_step(method, [next(batches)], step)

    def _still(self, folder: Path, **training: Any) -> DistillRuntime:
        """A run whose weights stay where they are, so that gradients of all its steps can be compared."""
        runtime = self.runtime(folder, learning_rate=0.0, **training)
        runtime.method.on_train_start()
        return runtime

    def _train(self, runtime: DistillRuntime, steps: int) -> dict[str, dict[str, Tensor]]:
        """Trains with the real trainer, saves at the end, and returns all weights."""
        DistillTrainer(runtime.training_args, config={}).run(
            runtime.method,
            runtime.dataloader,
            steps,
            runtime.start_step,
            checkpoint_manager=runtime.checkpoint_manager,
            callbacks=runtime.callbacks,
        )
        return {handle.name: weights(handle) for handle in runtime.method.bundle}

    @staticmethod
    def _compare_ends(
        what: str, first: Mapping[str, dict[str, Tensor]], second: Mapping[str, dict[str, Tensor]]
    ) -> None:
        for role, before in first.items():
            moved = changed(before, second[role])
            assert not moved, f"{what}: weights of {role} differ, first {moved[0]}"

    @staticmethod
    def _compare_gradients(
        what: str,
        expected: Mapping[str, Mapping[str, Tensor]],
        found: Mapping[str, Mapping[str, Tensor]],
        advice: str,
    ) -> None:
        for role, gradients in expected.items():
            assert set(gradients) == set(found[role]), f"{what}: other parameters of {role} have gradients"
            scale = loudest(gradients)
            for name, gradient in gradients.items():
                assert_close(
                    f"{what}: the gradient of {role}.{name}", found[role][name], gradient, scale=scale, advice=advice
                )


def write_gradients(folder: str, run: Mapping[str, Any], files: Sequence[str], steps: int) -> None:
    """In each process of a group: takes the steps of `run`; the first one writes every step's gradients."""
    from fastvideo_core.distributed import context

    rank, batch_size = context.rank(), run["training"]["train_batch_size"]
    own = Path(folder) / f"rank-{rank}"
    own.mkdir()
    with toy_world(*files):
        runtime = build_run(own, run)
        runtime.method.on_train_start()
        batches = endless(runtime.dataloader)
        with PerSampleDraws(runtime.method, batch_size) as draws:
            for step in range(1, steps + 1):
                first = [rank * batch_size]
                record = take_step(runtime.method, [next(batches)], step, draws=draws, first_samples=first)
                named = {
                    f"{role}/{name}": gradient.contiguous()
                    for role, gradients in record.gradients.items()
                    for name, gradient in gradients.items()
                }
                if rank == 0:
                    safetensors.torch.save_file(named, Path(folder) / f"gradients-{step}.safetensors")
