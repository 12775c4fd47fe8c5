"""What a family must do with batches and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from fastvideo_core.config.base import GuidedPipelineConfig
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
from fastvideo_testing.compare import assert_close, assert_equal, changed, loudest
from fastvideo_testing.family_suite import SHIFTS, FamilySuite, along, free_latents, refusal_skips
from fastvideo_testing.network_calls import record_calls
from fastvideo_testing.prepared_family import CAPTIONS, PreparedFamily, noisy_input, one_row_of
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
        if not batch.conditioning:
            pytest.skip("its networks are conditioned on nothing that guidance swaps: conditioning is empty")
        _, t, noisy = noisy_input(components, batch)
        same = torch.stack([noisy[0]] * batch.batch_size)
        level = t[:1].expand(batch.batch_size)
        out = self._predict(components, "student", same, level, batch)
        assert not torch.equal(out[0], out[1]), (
            "two samples with other captions, but the same latents, predict the same: does predict_noise hand the network "
            "batch.conditioning?"
        )

    @needs("encoder")
    def test_a_caption_reads_the_same_beside_a_longer_one(self, prepared: PreparedFamily) -> None:
        components = prepared.components()
        raw = prepared.raw_batch(components)
        if "text_embedding_length" not in raw:
            pytest.skip("its data has no text embeddings of different lengths")
        batch = components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(0))
        _, t, noisy = noisy_input(components, batch)
        together = self._predict(components, "student", noisy, t, batch)
        for index in range(batch.batch_size):
            one = components.adapter.prepare_batch(one_row_of(raw, index), generator=torch.Generator().manual_seed(0))
            part = slice(index, index + 1)
            alone = self._predict(
                components, "student", noisy[part], t[part], replace(one, latents=batch.latents[part])
            )
            assert_close(
                "a sample whose caption stands in a batch of its own", alone, together[part], rtol=10 * self.tolerance,
                advice="captions of a batch are padded to the longest one: mask by text_embedding_length, or pad all of them "
                "to one length as the model was trained",
            )  # fmt: skip

    @needs("encoder")
    @needs("negative")
    def test_the_negative_conditioning_is_an_encoded_text(self, prepared: PreparedFamily) -> None:
        guided = isinstance(prepared.section(), GuidedPipelineConfig)
        text = CAPTIONS[1] if guided else ""
        components = (prepared.with_options(negative_prompt=text) if guided else prepared).components()
        raw = prepared.one_row(components)
        encoder = self._encoder(prepared.run)
        found = components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(0))
        for called, conditioning, caption in (
            ("negative_conditioning", found.negative_conditioning, text),
            ("dropped_conditioning", found.dropped_conditioning, ""),
        ):
            if conditioning is None:
                continue
            (embedding,) = encoder.encode_texts([caption])
            as_data = {
                **raw,
                "text_embedding": embedding[None].cpu(),
                "text_embedding_length": torch.tensor([len(embedding)]),
            }
            wanted = components.adapter.prepare_batch(as_data, generator=torch.Generator().manual_seed(0)).conditioning
            zeros = not any(value.any() for value in conditioning.values() if value.is_floating_point())
            meant = any(value.any() for value in wanted.values() if value.is_floating_point())
            assert not (zeros and meant), (
                f"{called} is all zeros, and the encoder makes something else of {caption!r}: encode the text as that of "
                "captions; models were not trained on zeros"
            )
            for name, value in wanted.items():
                if guided:
                    assert_close(
                        f"{called}[{name!r}]", conditioning[name].double(), value.double(), rtol=10 * self.tolerance,
                        advice=f"it must be what the encoder and prepare_batch make of the caption {caption!r}"
                        + (" (pipeline_config.negative_prompt)" if caption else ", the empty text of dropped captions"),
                    )  # fmt: skip

    # --- noise --------------------------------------------------------------------------------------------------------

    def test_the_timestep_shift_keeps_order_and_range(self, prepared: PreparedFamily) -> None:
        adapter: Any = prepared.components().adapter
        total = adapter.num_train_timesteps
        t = torch.linspace(-0.1, 1.1, 49, dtype=torch.float64) * total
        shifted = adapter.shift_and_clamp_timestep(t)
        assert shifted.shape == t.shape, f"shift_and_clamp_timestep turned shape {list(t.shape)} into {shifted.shape}"
        low, high = float(shifted.min()), float(shifted.max())
        assert 0 <= low <= high <= total, f"shifted timesteps go from {low:g} to {high:g}, outside of 0 to {total}"
        assert low < total / 2 < high, (
            f"shifted timesteps go from {low:g} to {high:g}, and t from 0 to {total}: are they sigmas, or all clamped away?"
        )
        assert (shifted.diff() >= 0).all(), "shift_and_clamp_timestep does not keep the order of timesteps"

    @needs("flow_shift")
    def test_flow_shift_moves_the_noise_levels_and_nothing_else(self, prepared: PreparedFamily) -> None:
        shifted, predicted = [], []
        for value in SHIFTS:
            with refusal_skips(f"flow_shift {value:g}"):
                components, batch = self._batch(prepared.with_options(flow_shift=value))
            adapter: Any = components.adapter
            total = adapter.num_train_timesteps
            shifted.append(float(adapter.shift_and_clamp_timestep(torch.tensor([total / 2]))[0]) / total)
            generator = torch.Generator().manual_seed(0)
            noisy = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
            t = torch.full((batch.batch_size,), 0.3 * total)
            predicted.append(self._predict(components, "student", noisy, t, batch))
        assert abs(shifted[0] - 0.5) < 1e-3, (
            f"pipeline_config.flow_shift is 1, which is no shift, and shift_and_clamp_timestep moves 0.5 to {shifted[0]:.3g}: "
            "is flow_shift read?"
        )
        assert shifted[1] > 0.51, (
            f"with pipeline_config.flow_shift {SHIFTS[1]:g} shift_and_clamp_timestep moves 0.5 to {shifted[1]:.3g}: is it "
            "read, and s u / (1 + (s - 1) u) towards the noise?"
        )
        assert_close(
            "predict_noise at the same t with another flow_shift", predicted[1], predicted[0], rtol=self.tolerance,
            advice="t is shifted already when it comes to predict_noise: do not shift it again",
        )  # fmt: skip

    def test_nearby_noise_levels_are_told_apart(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        _, _, noisy = noisy_input(components, batch)
        with record_calls(components.bundle["student"].modules) as calls:
            for level in (0.7, 0.701):
                t = torch.full((batch.batch_size,), level * adapter.num_train_timesteps)
                self._predict(components, "student", noisy, t, batch)
        assert len(calls) == 2, f"two predictions called the networks of the role {len(calls)} times"
        assert changed(calls[0].inputs, calls[1].inputs), (
            "at sigma 0.700 and 0.701 the network is called with the same inputs: is the noise level rounded to bfloat16, or "
            "looked up in a table? Compute it in float32"
        )

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
        assert x0.dtype in (torch.float32, torch.float64), (
            f"predict_x0 gave {x0.dtype}, not float32: take x0 in float32, whatever the network computes in"
        )
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
        half = adapter.prediction_target(x0.bfloat16(), noise.bfloat16(), t)
        assert half.dtype in (torch.float32, torch.float64), (
            f"prediction_target of bfloat16 latents is {half.dtype}, not float32: losses would be computed in it"
        )
