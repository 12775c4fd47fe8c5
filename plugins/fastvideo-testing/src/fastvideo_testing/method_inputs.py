"""Checks of what a method gives to networks, and of what it makes of the batch: noise levels, loss weights, layout, processes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.training.trainer import endless
from fastvideo_testing.method_suite import SHIFT, MethodSuite, compare_gradients, differs
from fastvideo_testing.recorded_calls import NetworkCall, RecordedCalls
from fastvideo_testing.steps import take_step
from fastvideo_testing.suite import needs

_RANKS = 6
_MANY = 16


class InputChecks(MethodSuite):
    """What networks are called with."""

    # --- noise levels -----------------------------------------------------------------------------------------------

    def test_networks_are_called_at_the_noise_level_of_their_input(self, tmp_path: Path) -> None:
        runtime = self.still(tmp_path)
        length = getattr(runtime.method.adapter, "num_train_timesteps", 1000)
        levels: list[float] = []
        for record, recorded in self.recorded(runtime):
            for call in recorded.calls:
                where = f"step {record.step} calls {call}"
                levels += call.t.flatten().tolist()
                assert _is_in(call.t, length), (
                    f"{where} at timestep {_farthest(call.t, length):.4g}; timesteps lie in 0..{length}"
                )
                if call.noised_at is not None:
                    off = float((call.t - call.noised_at).abs().max())
                    assert off <= 1e-3 * length, (
                        f"{where} at timesteps that are up to {off:.4g} away from those at which add_noise made its input: give "
                        "both the same t"
                    )
        assert not levels or max(levels) > 1.5, (
            f"all networks are called at timesteps up to {max(levels):.3g}: t goes from 0 to {length} (num_train_timesteps), not "
            "from 0 to 1"
        )

    def test_noise_is_standard_normal(self, tmp_path: Path) -> None:
        runtime = self.still(tmp_path, train_batch_size=64)
        found: dict[int, list[Tensor]] = defaultdict(list)
        for _, recorded in self.recorded(runtime):
            for place, noise in enumerate(recorded.noises):
                found[place].append(noise.flatten().double())
        spread = [(float(torch.cat(noise).mean()), float(torch.cat(noise).std())) for noise in found.values()]
        near = [abs(mean) < 0.3 and 0.7 < std < 1.4 for mean, std in spread]
        assert any(near) or not near, (  # in some places it may be what a network makes of it
            f"the noise that add_noise is given has mean {spread[0][0]:.2f} and standard deviation {spread[0][1]:.2f}: sampling "
            "starts from standard normal noise; is it torch.rand, or are latents and noise exchanged? Take "
            "self.noise_like(latents, NAME)"
        )

    def test_timesteps_are_shifted_once(self, tmp_path: Path) -> None:
        if not self.is_toy():
            return
        changes = [{"pipeline_config": self.toy_config(flow_shift=shift)} for shift in (1.0, SHIFT)]
        plain, shifted = (
            _levels(self.still(tmp_path / str(n), change), self.steps) for n, change in enumerate(changes)
        )
        for place, before in plain.items():
            after = shifted.get(place)
            if after is None or after.shape != before.shape:
                continue
            inside = (before > 0.02) & (before < 0.98) & (after < 0.999)
            if int(inside.sum()) < 4:
                continue
            factor = (after / (1 - after) * (1 - before) / before)[inside].log()
            twice = ((factor - 2 * math.log(SHIFT)).abs() < 0.05).double().mean()
            assert float(twice) < 0.9, (
                f"{place[0]} is called at timesteps to which the family's shift was applied twice: "
                "shift_and_clamp_timestep takes an unshifted t, and networks and add_noise take what it gives"
            )

    # --- loss weights and layout ------------------------------------------------------------------------------------

    @needs("weights")
    def test_loss_weights_are_honoured(self, tmp_path: Path) -> None:
        advice = (
            "give batch.loss_weight to mean_per_sample in every loss; it is 0 on padding and on given frames, where networks "
            "have nothing to learn"
        )
        for record, recorded in self.recorded(self.runtime(tmp_path / "trained")):
            if not any(call.recorded and call.input_has_graph for call in recorded.calls):  # else padding counts in it
                _check_outputs(record.step, recorded.calls, advice)
        weighted = [record for record, _ in self.recorded(self.still(tmp_path / "weighted"))]
        without = [record for record, _ in self.recorded(self.still(tmp_path / "without"), _without_weights)]
        for one, other in zip(weighted, without, strict=True):
            for role in self.trainable:
                if one.gradients.get(role):
                    assert differs(one.gradients[role], other.gradients[role]), (
                        f"step {one.step} gives {role} the same gradients with the batch's loss_weight and without it: {advice}"
                    )

    def test_any_layout_of_latents_will_do(self, tmp_path: Path) -> None:
        if not self.is_toy():
            return
        config = self.toy_config(layout="video")
        vectors = [record.gradients for record in self.records(self.still(tmp_path / "vectors"))]
        advice = (
            "a method knows no layout: element-wise on latents, reducing over all dims but the first (mean_per_sample), and a "
            "number per sample becomes [B, 1, ...] with as many dims as the latents"
        )
        try:
            videos = [
                record.gradients
                for record in self.records(self.still(tmp_path / "videos", {"pipeline_config": config}))
            ]
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise AssertionError(f"latents [B, D] will do, and [B, 1, D, 1, 1] end in {said}; {advice}") from error
        for step, (expected, found) in enumerate(zip(vectors, videos, strict=True), start=1):
            compare_gradients(f"step {step}: latents [B, 1, D, 1, 1] against [B, D]", expected, found, advice)

    # --- networks ---------------------------------------------------------------------------------------------------

    def test_targets_are_made_without_a_graph(self, tmp_path: Path) -> None:
        for record, recorded in self.recorded(self.runtime(tmp_path)):
            for call in recorded.calls:
                assert call.role.trainable or not call.recorded or call.input_has_graph, (
                    f"step {record.step} calls {call} with gradients on, and nothing that goes in needs one: a target is made "
                    "under torch.no_grad(), or its graph is kept and the gradient finds its way through it"
                )

    def test_the_student_sees_the_conditioning(self, tmp_path: Path) -> None:
        calls: list[NetworkCall] = []
        for _, recorded in self.recorded(self.runtime(tmp_path)):
            calls += [call for call in recorded.calls if call.trains and call.role.name == self.student]
        halves = {call.conditional for call in calls}
        assert halves != {False}, (
            f"{self.student} is trained with conditional=False alone, so that it never sees a caption; pass conditional=True"
        )

    def test_the_batch_is_asked_for_as_latents_source_says(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        said = type(runtime.method).latents_source(runtime.cfg)
        for record, recorded in self.recorded(runtime):
            for options in recorded.asked:
                asked = options.get("latents_source", "data")
                assert said is None or asked == said, (
                    f"step {record.step} asks prepare_batch for {asked}, and latents_source(cfg) says {said}, by which `check` "
                    "and the data loader go: pass latents_source=self.latents_source(self.cfg)"
                )

    # --- processes --------------------------------------------------------------------------------------------------

    def test_all_processes_call_the_same_networks(self, tmp_path: Path) -> None:
        runtimes = [self.still(tmp_path / str(rank)) for rank in range(_RANKS)]
        batches = endless(runtimes[0].dataloader)
        recorded = []
        for rank, runtime in enumerate(runtimes):
            runtime.method.rng = RandomStreams(runtime.method.rng.seed, rank, runtime.method.rng.device)
            runtime.method.on_train_start()
            recorded.append(RecordedCalls.of(runtime.method))
        for step in range(1, max(self.steps, _MANY) + 1):
            raw = next(batches)
            for runtime, seen in zip(runtimes, recorded, strict=True):
                seen.clear()
                take_step(runtime.method, [raw], step, update=False)
            self._compare_processes(step, recorded)

    def _compare_processes(self, step: int, recorded: Sequence[RecordedCalls]) -> None:
        first = [str(call) for call in recorded[0].calls]
        for rank, seen in enumerate(recorded[1:], start=1):
            others = [str(call) for call in seen.calls]
            assert others == first, (
                f"step {step} calls other networks in process {rank} ({'; '.join(others)}) than in process 0 "
                f"({'; '.join(first)}): with networks that are sharded over processes the run hangs or ends in gloo's "
                "EnforceNotMet. What steers the program (exit steps, branches) is drawn from self.rng.shared(NAME)"
            )
            equal = [
                a
                for a, b in zip(recorded[0].noises, seen.noises, strict=False)
                if a.shape == b.shape and torch.equal(a, b)
            ]
            assert not equal, (
                f"step {step} gives process {rank} the noise of process 0, so that more processes bring nothing new: noise comes "
                "from self.rng.local(NAME), as self.noise_like(latents, NAME) draws it"
            )


def _check_outputs(step: int, calls: Sequence[NetworkCall], advice: str) -> None:
    """No gradient where the loss weight is 0."""
    for call in calls:
        if not isinstance(call.output, Tensor) or call.output.grad is None or call.loss_weight is None:
            continue
        if call.output.shape != call.noisy.shape:
            continue
        ignored = (call.loss_weight == 0).expand_as(call.output)
        loudest = float(call.output.grad.abs().max())
        wrong = float(call.output.grad[ignored].abs().max()) if ignored.any() else 0.0
        assert wrong <= 1e-6 * loudest, (
            f"step {step} asks something of the output of {call} where the loss weight is 0 (a gradient of {wrong:.2g}, up to "
            f"{loudest:.2g} elsewhere): {advice}"
        )


def _is_in(t: Tensor, length: int) -> bool:
    return float(t.min()) >= -1e-3 and float(t.max()) <= 1.001 * length


def _farthest(t: Tensor, length: int) -> float:
    return float(t.min()) if float(t.min()) < 0 else float(t.max())


def _without_weights(batch: TrainingBatch) -> TrainingBatch:
    return replace(batch, loss_weight=None)


def _levels(runtime: DistillRuntime, steps: int) -> dict[tuple[str, int], Tensor]:
    """The noise levels in [0, 1] of every place where a step calls a network."""
    method, batches = runtime.method, endless(runtime.dataloader)
    recorded, found = RecordedCalls.of(method), defaultdict(list)
    length = getattr(method.adapter, "num_train_timesteps", 1000)
    method.on_train_start()
    for step in range(1, steps + 1):
        recorded.clear()
        take_step(method, [next(batches)], step)
        for number, call in enumerate(recorded.calls):
            found[str(call), number].append(call.t.double().flatten() / length)
    return {place: torch.cat(levels) for place, levels in found.items()}
