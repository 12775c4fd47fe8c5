"""What a family's networks must do when they are called and trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from fastvideo_testing.compare import assert_close, assert_equal, changed, loudest
from fastvideo_testing.family_suite import FamilySuite, along
from fastvideo_testing.prepared_family import PreparedFamily, disturb, noisy_input, one_sample
from fastvideo_testing.runs import build_run
from fastvideo_testing.steps import gradients, weights
from fastvideo_testing.suite import needs


class NetworkChecks(FamilySuite):
    """Predictions, guidance, gradients, training and features."""

    # --- the network ----------------------------------------------------------------------------------------------------

    def test_the_handle_says_which_network_runs(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        student = self._predict(components, "student", noisy, t, batch)
        teacher = self._predict(components, "teacher", noisy, t, batch)
        assert_close("the teacher's output, with the student's weights,", teacher, student, rtol=self.tolerance)
        disturb(components.bundle["teacher"])
        moved = self._predict(components, "teacher", noisy, t, batch)
        assert not torch.equal(moved, teacher), (
            "the teacher's weights changed, its output did not: the adapter runs another network than the handle's"
        )
        again = self._predict(components, "student", noisy, t, batch)
        assert_equal(
            "the student's output after the teacher ran", again, student,
            advice="an adapter keeps no role's state, and each role has networks of its own, one of an equal path too",
        )  # fmt: skip

    def test_a_call_changes_none_of_its_inputs(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        inputs = {"noisy_latents": noisy, "t": t, "batch.latents": batch.latents, **batch.conditioning, **batch.context}
        before = {name: value.clone() for name, value in inputs.items()}
        held = weights(components.bundle["student"])
        for what in ("predict_noise", "predict_x0"):
            self._predict(components, "student", noisy, t, batch, what=what)
        touched = changed(before, inputs)
        assert not touched, f"predicting changed its input {touched[0]} in place: make a new tensor"
        moved = changed(held, weights(components.bundle["student"]))
        assert not moved, f"predicting changed {moved[0]} of the network"

    def test_timesteps_may_have_every_broadcastable_shape(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        flat = self._predict(components, "student", noisy, t, batch, what="predict_x0")
        wide = self._predict(components, "student", noisy, along(t, noisy), batch, what="predict_x0")
        assert_close("predict_x0 with t [B, 1, ...] instead of [B]", wide, flat, rtol=self.tolerance)

    def test_noise_levels_change_the_prediction(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        first = self._predict(components, "student", noisy, t, batch)
        second = self._predict(components, "student", noisy, t * 0.5, batch)
        assert not torch.equal(first, second), "the prediction does not depend on t: does it reach the network?"

    def test_networks_and_blocks_are_called_as_modules(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        student = components.bundle["student"]
        blocks = {
            f"{key}.{name}": module
            for key, network in student.modules.items()
            for name, module in network.named_modules()
            if isinstance(module, student.block_classes)
        }
        with _CallCounter(student.modules) as networks, _CallCounter(blocks) as parts:
            self._predict(components, "student", noisy, t, batch)
        direct = "(call modules, never their `forward`: what shards, recomputes and compiles them hangs on the call)"
        assert networks.most, f"predict_noise does not call a network of handle.modules as a module {direct}"
        if blocks:
            assert parts.most, (
                f"no block of block_classes, such as {next(iter(blocks))}, is called as a module {direct}"
            )

    @needs("batching")
    def test_samples_of_a_batch_do_not_influence_each_other(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        together = self._predict(components, "student", noisy, t, batch)
        for index in range(batch.batch_size):
            part = slice(index, index + 1)
            alone = self._predict(components, "student", noisy[part], t[part], one_sample(batch, index))
            assert_close(
                f"sample {index} predicted alone", alone, together[part], rtol=10 * self.tolerance,
                advice="padding, means over the batch, or a shared timestep leak between samples",
            )  # fmt: skip

    # --- guidance -------------------------------------------------------------------------------------------------------

    @needs("negative")
    def test_the_negative_conditioning_is_another_one(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        negative = batch.negative_conditioning
        assert negative is not None, "after on_train_start, batches have no negative conditioning"
        assert set(negative) == set(batch.conditioning), (
            f"negative conditioning has {sorted(negative)}, conditioning {sorted(batch.conditioning)}"
        )
        for name, value in batch.conditioning.items():
            shape = list(negative[name].shape)
            assert shape == list(value.shape), f"negative {name!r} has shape {shape}, positive {list(value.shape)}"
        _, t, noisy = noisy_input(components, batch)
        positive = self._predict(components, "student", noisy, t, batch)
        unconditional = self._predict(components, "student", noisy, t, batch, conditional=False)
        assert not torch.equal(positive, unconditional), (
            "conditional=False predicts the same as conditional=True: does the network get batch.negative_conditioning then?"
        )
        dropped = batch.with_conditioning_dropped(torch.ones(batch.batch_size, dtype=torch.bool))
        as_dropped = self._predict(components, "student", noisy, t, dropped)
        without = replace(batch, negative_conditioning=batch.dropped_conditioning or negative)
        unconditional = self._predict(components, "student", noisy, t, without, conditional=False)
        assert_close("a dropped caption against conditional=False", as_dropped, unconditional, rtol=self.tolerance)

    @needs("negative")
    def test_guidance_is_one_call_and_none_too_many(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        _, t, noisy = noisy_input(components, batch)
        teacher = components.bundle["teacher"]
        for what in ("predict_x0", "predict_noise"):
            conditional = self._predict(components, "teacher", noisy, t, batch, what=what)
            unconditional = self._predict(components, "teacher", noisy, t, batch, what=what, conditional=False)
            for scale in (3.0, 1.0):
                with torch.no_grad(), _CallCounter(teacher.modules) as calls:
                    guided = getattr(adapter, f"{what}_guided")(teacher, noisy, t, batch, guidance_scale=scale)
                expected = unconditional + scale * (conditional - unconditional)
                called = f"{what}_guided at scale {scale:g}"
                assert_close(
                    f"{called} (u + w (c - u))", guided, expected, rtol=10 * self.tolerance,
                    advice="both halves see the same latents, time and context (batch.with_both_conditionings)",
                )  # fmt: skip
                assert calls.most <= 1, f"{called} runs the network {calls.most} times, not once"
            assert_close("guidance at scale 1, which is no guidance,", guided, conditional, rtol=self.tolerance)

    @needs("negative")
    def test_the_context_holds_for_both_halves_of_guidance_and_for_dropped_captions(
        self, prepared: PreparedFamily
    ) -> None:
        _, batch = self._batch(prepared)
        size = batch.batch_size
        twice = batch.with_both_conditionings()
        dropped = batch.with_conditioning_dropped(torch.ones(size, dtype=torch.bool))
        for name, value in batch.context.items():
            assert value.shape[:1] == (size,), (
                f"context {name!r} has shape {list(value.shape)} for {size} samples: dim 0 is the batch, as guidance doubles it"
            )
            for half in (slice(None, size), slice(size, None)):
                assert_equal(f"context {name!r} of a half of guidance", twice.context[name][half], value)
            assert_equal(f"context {name!r} without captions", dropped.context[name], value)
        shared = sorted(set(batch.context) & set(batch.conditioning))
        assert not shared, f"{shared} are in the context and in the conditioning: which one does the network see?"

    # --- gradients ------------------------------------------------------------------------------------------------------

    def test_gradients_reach_the_trained_role_only(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        student, teacher = components.bundle["student"], components.bundle["teacher"]
        _, t, noisy = noisy_input(components, batch)
        x0 = adapter.predict_x0(student, noisy, t, batch, conditional=True)
        through = adapter.predict_x0(teacher, x0, t, batch, conditional=True)
        assert through.requires_grad, (
            "predict_x0 of the trained student has no graph: is something computed under no_grad, or detached?"
        )
        adapter.backward((through**2).mean(), None, 2)
        half = gradients(student)
        assert loudest(half) > 0, "all gradients that reach the student are 0"
        assert not gradients(teacher), f"the frozen teacher has a gradient in {next(iter(gradients(teacher)))}"
        reached = {name.partition(".")[0] for name in half}  # a role may have another network for other noise levels
        parameters = {name for name, _ in student.named_parameters() if name.partition(".")[0] in reached}
        without = sorted(parameters - set(half))
        assert len(without) < len(half), f"most of the student's parameters get no gradient, such as {without[:3]}"
        for parameter in student.trainable_parameters():
            parameter.grad = None
        x0 = adapter.predict_x0(student, noisy, t, batch, conditional=True)
        through = adapter.predict_x0(teacher, x0, t, batch, conditional=True)
        adapter.backward((through**2).mean(), None, 1)
        whole, scale = gradients(student), loudest(gradients(student))
        for name, gradient in half.items():
            what = f"backward(..., grad_accum_rounds=2) gives half of what 1 gives: {name}"
            assert_close(what, 2 * gradient, whole[name], scale=scale, rtol=1e-3)

    def test_it_trains_and_resumes(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        ends = {}
        for name, stops in (("straight", (2,)), ("resumed", (1, 2))):
            folder = tmp_path / name
            folder.mkdir()
            for stop in stops:
                training = {**prepared.run["training"], "output_dir": str(folder / "out")}
                training |= {"training_state_checkpointing_steps": 1, "max_train_steps": stop}
                if stop != stops[0]:
                    training["resume_from_checkpoint"] = "latest"
                runtime = build_run(folder, {**prepared.run, "training": training})
                before = {handle.name: weights(handle) for handle in runtime.method.bundle}
                runtime.train()
            ends[name] = {handle.name: weights(handle) for handle in runtime.method.bundle}
            assert changed(before["student"], ends[name]["student"]), "training did not change the student"
            assert not changed(before["teacher"], ends[name]["teacher"]), "training changed the frozen teacher"
        lines = (tmp_path / "straight" / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 2, f"two steps, and {len(lines)} lines of metrics"
        assert all("total_loss" in json.loads(line) for line in lines)
        differ = changed(ends["straight"]["student"], ends["resumed"]["student"])
        assert not differ, f"a step, a resume and another step differ from two steps at once, first in {differ[0]}"

    # --- features -----------------------------------------------------------------------------------------------------

    @needs("features")
    def test_features_have_the_channels_that_are_announced(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        _, t, noisy = noisy_input(components, batch)
        student = components.bundle["student"]
        features = adapter.extract_features(student, noisy, t, batch, conditional=True)
        announced = adapter.feature_channels(student)
        found = [list(feature.shape) for feature in features]
        assert all(len(shape) == 3 and shape[0] == batch.batch_size for shape in found), (
            f"features have shapes {found}; each is [B, tokens, channels]"
        )
        channels = tuple(shape[2] for shape in found)
        assert channels == tuple(announced), (
            f"feature_channels says {tuple(announced)}, the features have {channels}: name those of the modules that "
            "extract_features reads"
        )
        assert all(feature.requires_grad for feature in features), (
            "features come without their graph: they are neither detached nor made under torch.no_grad()"
        )

    @needs("features")
    def test_features_depend_on_the_network_s_output(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        _, t, noisy = noisy_input(components, batch)
        student = components.bundle["student"]
        reached: list[torch.Tensor] = []

        def watch(module: nn.Module, args: Any, output: Any) -> None:
            for leaf in tree_leaves(output):
                if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
                    leaf.register_hook(reached.append)  # type: ignore[no-untyped-call]

        with ExitStack() as hooks:
            for module in student.modules.values():
                hooks.enter_context(module.register_forward_hook(watch))
            features = adapter.extract_features(student, noisy, t, batch, conditional=True)
        sum((feature.float() ** 2).mean() for feature in features).backward()
        assert reached, (
            "the gradient of extract_features does not pass the network's output: on two processes a sharded network would "
            "crash; take them by features_of(modules, predict) of fastvideo_core, which adds a gradient of 0"
        )


class _CallCounter:
    """Counts the forward calls of a role's networks."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._calls = dict.fromkeys(modules, 0)

    def __enter__(self) -> _CallCounter:
        self._hooks = [
            module.register_forward_hook(lambda *_, name=name: self._count(name))
            for name, module in self._modules.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, name: str) -> None:
        self._calls[name] += 1

    @property
    def most(self) -> int:
        """Calls of the network that was called most often."""
        return max(self._calls.values(), default=0)
