"""What a family must do with batches and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fastvideo_core.contracts.adapter import (
    AddNoise,
    Backward,
    ExtractFeatures,
    FeatureChannels,
    NumTrainTimesteps,
    PredictionTarget,
    PredictNoise,
    PredictNoiseGuided,
    PredictX0,
    PredictX0Guided,
    ShiftAndClampTimestep,
)
from fastvideo_core.contracts.adapter_check import check_adapter
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.errors import ContractError
from fastvideo_testing.compare import assert_close, assert_equal, loudest
from fastvideo_testing.family_suite import FamilySuite, along, free_latents
from fastvideo_testing.prepared_family import PreparedFamily, noisy_input
from fastvideo_testing.suite import needs

PRIMITIVES: Mapping[type, str] = {
    **dict.fromkeys((NumTrainTimesteps, ShiftAndClampTimestep, AddNoise, PredictX0, PredictNoise), ""),
    **dict.fromkeys((PredictionTarget, PredictX0Guided, PredictNoiseGuided, Backward), ""),
    **dict.fromkeys((ExtractFeatures, FeatureChannels), "features"),
}
"""Core's primitives, and the capability that some come with; the others every family has."""


class BatchChecks(FamilySuite):
    """Roles, primitives, batches and noise."""

    # --- what is built ------------------------------------------------------------------------------------------------

    def test_roles_are_what_the_contract_says(self, prepared: PreparedFamily) -> None:
        components = prepared.components()
        assert isinstance(components, ModelComponents), f"build gave {type(components).__name__}, not ModelComponents"
        names = [handle.name for handle in components.bundle]
        assert names == ["student", "teacher"], f"the roles are student and teacher, and build gave {names}"
        for handle in components.bundle:
            wanted = handle.name == "student"
            assert handle.trainable is wanted, f"{handle.name}.trainable is {handle.trainable}; run.yaml says {wanted}"
            assert handle.modules, f"{handle.name} has no modules"
            where = [name for name, p in handle.named_parameters() if p.is_meta]
            assert not where, f"{handle.name}.{where[0]} is still on the meta device, and `weights` does not give it"
            assert handle.block_classes, (
                f"{handle.name}.block_classes is empty: name the classes of its repeated blocks, which are sharded, "
                "checkpointed and compiled one by one"
            )
            modules = [module for network in handle.modules.values() for module in network.modules()]
            for block in handle.block_classes:
                assert any(isinstance(module, block) for module in modules), (
                    f"{handle.name}.block_classes names {block.__name__}, and no module is one"
                )
        dtypes = {p.dtype for p in components.bundle["student"].trainable_parameters()}
        assert dtypes == {torch.float32}, f"trained weights are {dtypes}: optimizers need float32"

    def test_it_has_every_primitive(self, prepared: PreparedFamily) -> None:
        try:  # building a run asks for what its method needs
            adapter = prepared.components().adapter
        except ContractError as error:
            raise AssertionError(str(error)) from error
        for primitive, capability in PRIMITIVES.items():
            if capability in self.unsupported:
                continue
            try:
                check_adapter(adapter, primitive, method="any", family=self.plugin)
            except ContractError as error:
                hint = f"\n(or opt out of {capability!r} in `unsupported`)" if capability else ""
                raise AssertionError(f"{error}{hint}") from error

    # --- batches --------------------------------------------------------------------------------------------------------

    def test_batches_are_what_the_contract_says(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        assert isinstance(batch, TrainingBatch), f"prepare_batch gave {type(batch).__name__}, not TrainingBatch"
        assert batch.latents.dtype == torch.float32, f"latents are {batch.latents.dtype}, not float32"
        assert torch.isfinite(batch.latents).all(), "latents hold NaN or infinite numbers"
        assert batch.conditioning, "conditioning is empty"
        for name, value in batch.conditioning.items():
            assert len(value) == batch.batch_size, (
                f"conditioning[{name!r}] has shape {list(value.shape)}; dim 0 is the batch, {batch.batch_size}"
            )
        if batch.loss_weight is not None:
            shape = list(batch.loss_weight.expand_as(batch.latents).shape)
            assert shape == list(batch.latents.shape), "loss_weight does not broadcast to the latents"
        raw = prepared.raw_batch(components)
        again = [components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
        assert_equal("the latents of the same raw batch", again[1].latents, again[0].latents)

    def test_it_draws_nothing_from_the_global_generator(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        raw, before = prepared.raw_batch(components), torch.get_rng_state()
        components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(0))
        _, t, noisy = noisy_input(components, batch)
        self._predict(components, "student", noisy, t, batch)
        assert torch.equal(before, torch.get_rng_state()), (
            "prepare_batch or predict_noise drew from torch's global generator: use the `generator` that is passed in"
        )

    @needs("zeros")
    def test_zeros_have_the_shape_of_the_data(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        zeros = components.adapter.prepare_batch(prepared.raw_batch(components), latents_source="zeros")
        assert zeros.latents.shape == batch.latents.shape, (
            f'latents_source="zeros" gives {list(zeros.latents.shape)}, the data {list(batch.latents.shape)}'
        )
        assert loudest({"": zeros.latents}) == 0, 'latents_source="zeros" gives latents that are not zero'

    @needs("encoder")
    def test_captions_reach_the_conditioning(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        same = torch.stack([noisy[0]] * batch.batch_size)
        level = t[:1].expand(batch.batch_size)
        out = self._predict(components, "student", same, level, batch)
        assert not torch.equal(out[0], out[1]), (
            "two samples with other captions, but the same latents, predict the same"
        )

    # --- noise --------------------------------------------------------------------------------------------------------

    def test_the_timestep_shift_keeps_order_and_range(self, prepared: PreparedFamily) -> None:
        adapter: Any = prepared.components().adapter
        total = adapter.num_train_timesteps
        t = torch.linspace(-0.1, 1.1, 49, dtype=torch.float64) * total
        shifted = adapter.shift_and_clamp_timestep(t)
        assert shifted.shape == t.shape, f"shift_and_clamp_timestep turned shape {list(t.shape)} into {shifted.shape}"
        low, high = float(shifted.min()), float(shifted.max())
        assert 0 <= low <= high <= total, f"shifted timesteps go from {low:g} to {high:g}, outside of 0 to {total}"
        assert low == 0, f"t = 0 is clean and stays 0; it became {low:g}"
        assert high == total, f"t = {total} is pure noise and stays so; it became {high:g}"
        assert (shifted.diff() >= 0).all(), "shift_and_clamp_timestep does not keep the order of timesteps"

    def test_noise_is_added_as_the_contract_says(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        noise, t, noisy = noisy_input(components, batch)
        assert noisy.dtype == batch.latents.dtype, f"add_noise turned {batch.latents.dtype} into {noisy.dtype}"
        sigma = along(t.double() / adapter.num_train_timesteps, noise)
        expected = (1 - sigma) * batch.latents.double() + sigma * noise.double()
        free = free_latents(batch)
        formula = "x_t = (1 - sigma) x0 + sigma noise with sigma = t / num_train_timesteps"
        assert_close(f"add_noise ({formula})", noisy * free, expected * free, rtol=1e-5)
        ends = ((0.0, batch.latents, "the clean latents"), (1.0, noise, "the noise"))
        for sigma_end, wanted, called in ends:
            at = torch.full_like(t, sigma_end * adapter.num_train_timesteps)
            got = adapter.add_noise(batch.latents, noise, at)
            assert_close(f"add_noise at sigma {sigma_end:g} ({called})", got * free, wanted * free, rtol=1e-5)
        half = adapter.add_noise(batch.latents.bfloat16(), noise.bfloat16(), t)
        assert half.dtype == torch.bfloat16, f"add_noise turned bfloat16 latents into {half.dtype}"

    def test_x0_prediction_and_noisy_latents_belong_together(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        _, t, noisy = noisy_input(components, batch)
        prediction = self._predict(components, "student", noisy, t, batch)
        x0 = self._predict(components, "student", noisy, t, batch, what="predict_x0")
        for name, value in (("predict_noise", prediction), ("predict_x0", x0)):
            assert value.shape == noisy.shape, f"{name} gave {list(value.shape)} for latents {list(noisy.shape)}"
            assert torch.isfinite(value).all(), f"{name} gave NaN or infinite numbers"
        assert x0.dtype in (torch.float32, torch.float64), f"predict_x0 gave {x0.dtype}, not float32"
        sigma = along(t.double() / adapter.num_train_timesteps, noisy)
        noise = (noisy.double() - (1 - sigma) * x0.double()) / sigma
        target = adapter.prediction_target(x0.double(), noise, t)
        free = free_latents(batch)
        assert_close(
            "with x0 = predict_x0 and the noise that x_t and x0 imply, prediction_target(x0, noise, t)",
            target * free,
            prediction.double() * free,
            rtol=self.tolerance,
            advice="it must be what predict_noise gave: is a sign or a sigma wrong in one of the three?",
        )
