"""The conformance suite of methods: subclass it in a method's own tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch

from fastvideo_core.contracts.adapter_check import check_adapter
from fastvideo_core.errors import ConfigError, ContractError, UserError
from fastvideo_core.registry import MethodPlugin, register_method
from fastvideo_core.training.trainer import endless
from fastvideo_testing.bare import BareAdapter, OnlyDeclared, members_needed
from fastvideo_testing.draws import PerSampleDraws
from fastvideo_testing.method_inputs import InputChecks
from fastvideo_testing.method_options import OptionChecks
from fastvideo_testing.method_sampling import SamplingChecks
from fastvideo_testing.method_settings import SettingsChecks
from fastvideo_testing.method_steps import StepChecks
from fastvideo_testing.method_suite import BATCH, compare_ends, compare_gradients
from fastvideo_testing.ranks import run_ranks
from fastvideo_testing.recorded_calls import RecordedCalls
from fastvideo_testing.runs import build_run, toy_world
from fastvideo_testing.samples import sample_distance
from fastvideo_testing.steps import take_step
from fastvideo_testing.suite import needs
from fastvideo_testing.toy import EXACT

_SHORT = "short-of-one"
_STRANGER = "stranger"


class MethodPluginSuite(StepChecks, InputChecks, SettingsChecks, OptionChecks, SamplingChecks):
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

    # --- what it declares -----------------------------------------------------------------------------------------

    def test_it_declares_every_primitive_that_it_uses(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        method = runtime.method
        method.adapter = OnlyDeclared(method.adapter, type(method), method.cfg)
        list(self.records(runtime))

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

    def test_it_declares_every_role_that_it_asks_for(self, tmp_path: Path) -> None:
        try:
            list(self.records(self.runtime(tmp_path)))
        except (ConfigError, ContractError) as error:
            cause = error.__cause__  # of a role that check_run looks for
            if not isinstance(cause, KeyError) and not any(
                "missing role" in problem.found for problem in error.problems
            ):
                raise
            said = cause if isinstance(cause, KeyError) else error
            raise AssertionError(
                f"the method asks for a role that its spec does not declare ({said}): add it to `roles`, or to `optional_roles` "
                "and ask with `in self.bundle` first"
            ) from error

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
                list(self.records(build_run(tmp_path, run)))
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
        recorded = RecordedCalls.of(runtime.method)
        method, batch = runtime.method, next(endless(runtime.dataloader))
        method.on_train_start()
        kinds: set[str] = set()
        for step in range(1, self.steps + 1):
            take_step(method, [batch], step, vsa_sparsity=0.5)
            kinds |= {call.attn_kind for call in recorded.calls if call.role.trainable and call.attn_kind}
        assert "vsa" in kinds or not kinds, (
            "with `attn_kind: vsa` every trained network is called as without it: pass attn_kind to the adapter's "
            "predict_x0 and predict_noise, or refuse the option in the config's check_run"
        )
        unasked = [options for options in recorded.asked if options.get("current_vsa_sparsity") != 0.5]
        assert not unasked or not kinds, (
            "`training.VSA_sparsity` does nothing: pass single_train_step's current_vsa_sparsity to prepare_batch"
        )

    # --- does it learn? -----------------------------------------------------------------------------------------------

    @needs("learning")
    def test_the_student_comes_nearer_to_the_data(self, tmp_path: Path) -> None:
        steps = self.learning_steps
        run = self.run(tmp_path, max_train_steps=steps, train_batch_size=64, learning_rate=5e-3, logging_steps=steps)
        for name, role in run["roles"].items():
            role["path"] = f"toy/{name}" if name in self.trainable else EXACT
        run["pipeline_config"] = {**self.pipeline_config, "num_samples": 4096, "width": 32}
        runtime = build_run(tmp_path, run)
        before = sample_distance(runtime, self.student)
        self.train(runtime, steps)
        after = sample_distance(runtime, self.student)
        assert after < before / 3, (
            f"after {steps} steps with a perfect teacher the samples of {self.student} are {after:.2f} away from the "
            f"data's distribution (squared 2-Wasserstein distance), and they began at {before:.2f}: is a sign wrong in "
            "the loss, or is the target not what the student should become?"
        )

    # --- accumulation, processes, resuming ----------------------------------------------------------------------------

    @needs("accumulation")
    def test_rounds_accumulate_to_one_large_batch(self, tmp_path: Path) -> None:
        half = BATCH // 2
        whole = self.still(tmp_path / "whole", train_batch_size=BATCH)
        rounds = self.still(tmp_path / "rounds", train_batch_size=half, gradient_accumulation_steps=2)
        whole.method.on_train_start()
        rounds.method.on_train_start()
        large, small = endless(whole.dataloader), endless(rounds.dataloader)
        for step in range(1, self.steps + 1):
            with PerSampleDraws(whole.method, BATCH) as draws:
                one = take_step(whole.method, [next(large)], step, draws=draws, first_samples=[0])
            with PerSampleDraws(rounds.method, half) as draws:
                pair = [next(small), next(small)]
                two = take_step(rounds.method, pair, step, draws=draws, first_samples=[0, half])
            compare_gradients(
                f"step {step}: two accumulation rounds of {half} samples against one of {BATCH}",
                one.gradients,
                two.gradients,
                "divide the loss by grad_accum_rounds in `backward`, average over samples, and keep what an iteration "
                "decides (exit steps, say) the same in all its rounds",
            )

    @needs("ranks")
    def test_two_processes_give_the_gradients_of_one(self, tmp_path: Path) -> None:
        half = BATCH // 2
        one = self.still(tmp_path / "one", train_batch_size=BATCH)
        one.method.on_train_start()
        batches = endless(one.dataloader)
        expected = {}
        with PerSampleDraws(one.method, BATCH) as draws:
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
            compare_gradients(
                f"step {step}: two processes of {half} samples against one of {BATCH}",
                gradients,
                found,
                "losses must be means over samples, and what steers the program must come from self.rng.shared(NAME)",
            )

    @needs("resume")
    def test_a_resumed_run_ends_like_one_that_was_never_interrupted(self, tmp_path: Path) -> None:
        total = 2 * self.steps
        changing = {"lr_scheduler": "cosine", **self.training, "max_train_steps": total}
        straight = self.train(self.runtime(tmp_path / "straight", **changing), total)
        folder = tmp_path / "resumed"
        self.train(self.runtime(folder, **changing), self.steps)
        again = self.runtime(folder, **changing, resume_from_checkpoint="latest")
        assert again.start_step == self.steps
        resumed = self.train(again, total)
        compare_ends(
            f"{self.steps} steps, a resume and {self.steps} more steps against {total} steps at once "
            "(checkpoint_state must keep what the algorithm remembers between steps, and load_checkpoint_state take it back; "
            "random numbers come from self.rng, not from a generator of its own; optimizers and schedulers are in role handles)",
            straight,
            resumed,
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
