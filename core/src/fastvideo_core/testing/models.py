"""The conformance suite of model families: subclass it in a family's own tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from fastvideo_core.adapter import PRIMITIVES, check_primitives
from fastvideo_core.batch import TrainingBatch
from fastvideo_core.components import ModelComponents
from fastvideo_core.data.validation import ValidationPrompt
from fastvideo_core.dispatch.sources import load_role, role_source
from fastvideo_core.errors import ContractError, UserError
from fastvideo_core.registry import Kind, ModelPlugin
from fastvideo_core.testing.compare import assert_close, assert_equal, changed, loudest
from fastvideo_core.testing.families import (
    CAPTIONS,
    Clip,
    PreparedFamily,
    disturb,
    encode_clips,
    files_of,
    noisy_input,
    one_sample,
    write_clips,
)
from fastvideo_core.testing.runs import build_run, load_config
from fastvideo_core.testing.steps import gradients, weights
from fastvideo_core.testing.suite import PluginSuite, needs
from fastvideo_core.validator import ValidationRequest

OFFERED = {"extract_features": "features", "feature_channels": "features"}
"""Primitives that come with a capability; the others every family has."""


@dataclass(frozen=True)
class Packing:
    """How a family turns what its autoencoder gives into its one latent tensor, for the check of the way there and back.

    Args:
        pack: from the separate parts to latents [B, ...].
        unpack: the inverse.
        example: some parts.
    """

    pack: Callable[[tuple[Tensor, ...]], Tensor]
    unpack: Callable[[Tensor], tuple[Tensor, ...]]
    example: tuple[Tensor, ...]


class ModelPluginSuite(PluginSuite):
    """What every family must do; needs no method (the toy method trains it).

        class TestMyFamily(ModelPluginSuite):
            plugin = "my-family"

    Attributes:
        config: the `pipeline_config` that is tested.
        path: the roles' `path` where the family has no `tiny`; None uses what `tiny` writes.
        clip: size of the clips that are preprocessed; None takes the smallest that the encoder's geometry allows.
        training: options of `training` that the family needs beside the suite's.
        tolerance: largest deviation, relative to the largest value, between two ways to the same result.
    """

    kind: ClassVar[Kind] = "models"
    capabilities: ClassVar[Mapping[str, str]] = {
        "features": "hidden states for an adversarial term: extract_features, feature_channels",
        "negative": "a negative conditioning, and with it guidance",
        "zeros": "latents of the run's shape without data",
        "batching": "samples of a batch do not influence each other",
        "tiny": "a small random-weight pipeline",
        "preprocess": "videos and captions to parquet",
        "export": "a trained role as a folder of the family's own format",
        "sample": "videos from prompts",
        "outline": "networks on the meta device, for `check`",
        "packing": "latents packed into one tensor; override packing()",
    }

    path: ClassVar[str | None] = None
    clip: ClassVar[Clip | None] = None
    training: ClassVar[Mapping[str, Any]] = {}
    tolerance: ClassVar[float] = 1e-4

    def packing(self, components: ModelComponents) -> Packing | None:
        """How latents are packed; None for latents that are the autoencoder's own tensor."""
        return None

    # --- runs -----------------------------------------------------------------------------------------------------

    def section(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"pipeline_config": dict(values)}

    def run(self, folder: Path, **training: Any) -> dict[str, Any]:
        path = self.path if self.path is not None else "org/pipeline"
        return {
            "recipe": {"family": self.plugin, "method": "toy"},
            "roles": {
                "student": {"path": path, "trainable": True},
                "teacher": {"path": path, "trainable": False},
            },
            "training": {
                "output_dir": str(folder / "out"),
                "max_train_steps": 2,
                "train_batch_size": 2,
                "learning_rate": 1e-3,
                **self.training,
                **training,
            },
            **self.section(self.config),
        }

    def prepare(self, folder: Path) -> PreparedFamily:
        """The tiny pipeline and its data, written into `folder`."""
        run = self.run(folder)
        if "tiny" not in self.unsupported:
            self._target("tiny")(folder / "tiny", seed=0)
            for role in run["roles"].values():
                role["path"] = str(folder / "tiny")
        clip = None
        if "preprocess" not in self.unsupported:
            encoder = self._encoder(run)
            clip = self.clip or Clip.smallest(encoder.geometry)
            write_clips(folder / "clips", clip, encoder.geometry.fps)
            encode_clips(encoder, folder / "clips", folder / "data", clip)
            run["training"]["data_path"] = str(folder / "data")
        return PreparedFamily(folder, run, clip)

    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedFamily]:
        suite = cls()
        with suite.world():
            yield suite.prepare(tmp_path_factory.mktemp("family"))

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
        adapter = prepared.components().adapter
        for name in PRIMITIVES:
            if OFFERED.get(name) in self.unsupported:
                continue
            try:
                check_primitives(adapter, [name], method="any", family=self.plugin)
            except ContractError as error:
                capability = OFFERED.get(name)
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

    @needs("preprocess")
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
        sigma = _along(t.double() / adapter.num_train_timesteps, noise)
        expected = (1 - sigma) * batch.latents.double() + sigma * noise.double()
        free = _free(batch)
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
        sigma = _along(t.double() / adapter.num_train_timesteps, noisy)
        noise = (noisy.double() - (1 - sigma) * x0.double()) / sigma
        target = adapter.prediction_target(x0.double(), noise, t)
        free = _free(batch)
        assert_close(
            "with x0 = predict_x0 and the noise that x_t and x0 imply, prediction_target(x0, noise, t)",
            target * free,
            prediction.double() * free,
            rtol=self.tolerance,
            advice="it must be what predict_noise gave: is a sign or a sigma wrong in one of the three?",
        )

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
            "the student's output after the teacher ran", again, student, advice="adapters keep no role's state"
        )

    def test_a_call_changes_none_of_its_inputs(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        inputs = {"noisy_latents": noisy, "t": t, "batch.latents": batch.latents, **batch.conditioning}
        before = {name: value.clone() for name, value in inputs.items()}
        held = weights(components.bundle["student"])
        for what in ("predict_noise", "predict_x0"):
            self._predict(components, "student", noisy, t, batch, what=what)
        touched = changed(before, inputs)
        assert not touched, f"predicting changed its input {touched[0]} in place"
        moved = changed(held, weights(components.bundle["student"]))
        assert not moved, f"predicting changed {moved[0]} of the network"

    def test_timesteps_may_have_every_broadcastable_shape(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        flat = self._predict(components, "student", noisy, t, batch, what="predict_x0")
        wide = self._predict(components, "student", noisy, _along(t, noisy), batch, what="predict_x0")
        assert_close("predict_x0 with t [B, 1, ...] instead of [B]", wide, flat, rtol=self.tolerance)

    def test_noise_levels_change_the_prediction(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        _, t, noisy = noisy_input(components, batch)
        first = self._predict(components, "student", noisy, t, batch)
        second = self._predict(components, "student", noisy, t * 0.5, batch)
        assert not torch.equal(first, second), "the prediction does not depend on t: does it reach the network?"

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
        assert not torch.equal(positive, unconditional), "conditional=False predicts the same as conditional=True"
        dropped = batch.with_conditioning_dropped(torch.ones(batch.batch_size, dtype=torch.bool))
        as_dropped = self._predict(components, "student", noisy, t, dropped)
        assert_close("a dropped caption against conditional=False", as_dropped, unconditional, rtol=self.tolerance)

    @needs("negative")
    def test_guidance_is_one_call_and_none_too_many(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        _, t, noisy = noisy_input(components, batch)
        conditional = self._predict(components, "teacher", noisy, t, batch, what="predict_x0")
        unconditional = self._predict(components, "teacher", noisy, t, batch, what="predict_x0", conditional=False)
        teacher = components.bundle["teacher"]
        for scale in (3.0, 1.0):
            with torch.no_grad(), _CallCounter(teacher.modules) as calls:
                guided = adapter.predict_x0_guided(teacher, noisy, t, batch, guidance_scale=scale)
            expected = unconditional + scale * (conditional - unconditional)
            assert_close(
                f"predict_x0_guided at scale {scale:g} (u + w (c - u))", guided, expected, rtol=10 * self.tolerance
            )
            assert calls.most <= 1, f"guidance at scale {scale:g} runs the network {calls.most} times, not once"
        assert_close("guidance at scale 1, which is no guidance,", guided, conditional, rtol=self.tolerance)

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
        without = sorted({name for name, _ in student.named_parameters()} - set(half))
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
        assert channels == tuple(announced), f"feature_channels says {tuple(announced)}, the features have {channels}"
        assert all(feature.requires_grad for feature in features), "features come without their graph"

    # --- the command line's targets -------------------------------------------------------------------------------------

    @needs("tiny")
    def test_equal_seeds_write_equal_tiny_pipelines(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        write, state = self._target("tiny"), torch.get_rng_state()
        for name, seed in (("one", 0), ("two", 0), ("three", 1)):
            write(tmp_path / name, seed=seed)
        one, two, three = (files_of(tmp_path / name) for name in ("one", "two", "three"))
        differing = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
        assert not differing, f"equal seeds write another {differing[0]}"
        assert one != three, "another seed writes the same weights"
        assert torch.equal(state, torch.get_rng_state()), "writing a tiny pipeline moved torch's global generator"

    @needs("outline")
    def test_the_outline_is_of_the_networks_that_are_built(self, prepared: PreparedFamily) -> None:
        built = prepared.components().bundle["student"]
        networks = self._target("outline")(prepared.run["roles"]["student"]["path"])
        assert set(networks) == set(built.modules), (
            f"the outline has {sorted(networks)}, the role has the modules {sorted(built.modules)}"
        )
        for name, network in networks.items():
            real = [(key, list(p.shape)) for key, p in network.named_parameters() if not p.is_meta]
            assert not real, f"the outline's {real[0][0]} takes memory; build it on the meta device"
            shapes = {key: list(p.shape) for key, p in network.named_parameters()}
            wanted = {key: list(p.shape) for key, p in built.modules[name].named_parameters()}
            assert shapes == wanted, f"the outline of {name} has other parameters than the network that is built"

    @needs("preprocess")
    def test_preprocessing_again_gives_the_same_latents(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        assert prepared.clip is not None
        encoder = self._encoder(prepared.run)
        description = encoder.describe()
        assert description.get("latents_normalised") in ("true", "false"), (
            f"describe() says latents_normalised={description.get('latents_normalised')!r}, not 'true' or 'false'"
        )
        encode_clips(encoder, prepared.folder / "clips", tmp_path / "data", prepared.clip)
        again = PreparedFamily(prepared.folder, _with_data(prepared.run, tmp_path / "data"), prepared.clip)
        components = prepared.components()
        first, second = (one.raw_batch(components)["vae_latent"] for one in (prepared, again))
        assert_equal("latents that are encoded twice", second, first)

    @needs("export")
    def test_an_exported_role_is_the_same_network(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        components, batch = self._batch(prepared)
        student = components.bundle["student"]
        disturb(student)
        _, t, noisy = noisy_input(components, batch)
        before = self._predict(components, "student", noisy, t, batch)
        modules = {name: dict(module.state_dict()) for name, module in student.modules.items()}
        registry, plugin = self.found()
        section = registry.config_class(plugin).model_validate(dict(self.config))
        base = prepared.run["roles"]["student"]["path"]
        self._target("export")(base, tmp_path / "out", modules, pipeline_config=section, student_schedule=None)
        again = prepared.components(student=str(tmp_path / "out"))
        after = self._predict(again, "student", noisy, t, batch)
        assert_equal("the output of the exported role, opened again,", after, before)

    @needs("sample")
    def test_equal_seeds_sample_equal_videos(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        registry, plugin = self.found()
        section = registry.config_class(plugin).model_validate(dict(self.config))
        sampler = self._target("sample")(prepared.run["roles"]["student"]["path"], section, device=torch.device("cpu"))
        cfg = load_config(prepared.folder, prepared.run)
        load_role(sampler.handle, role_source("student", cfg.roles["student"]))
        clip = prepared.clip or self.clip
        prompt = ValidationPrompt(CAPTIONS[0])
        if clip is not None:
            prompt = replace(prompt, height=clip.height, width=clip.width, num_frames=clip.num_frames)
        total = float(prepared.components().adapter.num_train_timesteps)  # type: ignore[attr-defined]
        videos = []
        for seed in (0, 0, 1):
            request = ValidationRequest(
                sampler.handle, tmp_path, sampler_kind="ode", sampling_timesteps=(total, total / 2)
            )
            with torch.no_grad():
                videos.append(sampler.sample(request, prompt, torch.Generator().manual_seed(seed)).frames)
        assert videos[0].dtype == torch.uint8, f"frames are {videos[0].dtype}, not uint8 [T, H, W, 3]"
        assert videos[0].ndim == 4, f"frames have shape {list(videos[0].shape)}, not [T, H, W, 3]"
        assert videos[0].shape[-1] == 3, f"frames have shape {list(videos[0].shape)}, not [T, H, W, 3]"
        assert torch.equal(videos[0], videos[1]), "equal seeds give other videos: draw from the generator only"
        assert not torch.equal(videos[0], videos[2]), "another seed gives the same video: is the generator used?"

    @needs("packing")
    def test_packing_there_and_back_changes_nothing(self, prepared: PreparedFamily) -> None:
        components = prepared.components()
        packing = self.packing(components)
        if packing is None:
            pytest.skip("latents are one tensor already: packing() gives None")
        back = packing.unpack(packing.pack(packing.example))
        assert len(back) == len(packing.example), f"{len(packing.example)} parts were packed, {len(back)} came back"
        for index, (part, before) in enumerate(zip(back, packing.example, strict=True)):
            assert_equal(f"part {index} after packing and unpacking", part, before)

    def test_a_path_without_a_model_is_the_user_s_error(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        if "tiny" in self.unsupported:
            pytest.skip("the suite knows no folder of this family")
        (tmp_path / "empty").mkdir()
        try:
            prepared.components(student=str(tmp_path / "empty"))
        except UserError:
            return
        except Exception as error:
            raise AssertionError(
                f"a role whose path is an empty folder ends in {type(error).__name__}: {error}; raise ConfigError with "
                "the role and what is missing"
            ) from error
        raise AssertionError("a role whose path is an empty folder was built")

    # --- helpers --------------------------------------------------------------------------------------------------------

    def _target(self, name: str) -> Any:
        registry, plugin = self.found()
        assert isinstance(plugin.spec, ModelPlugin)
        assert plugin.spec.target(name) is not None, (
            f"the spec of {self.called()} has no `{name}`; give it, or opt out of {name!r} in `unsupported` with a reason"
        )
        return registry.resolve(plugin, name)

    def _encoder(self, run: Mapping[str, Any]) -> Any:
        return self._target("preprocess")(run["roles"]["student"]["path"], device=torch.device("cpu"))

    @staticmethod
    def _batch(prepared: PreparedFamily) -> tuple[ModelComponents, TrainingBatch]:
        components = prepared.components()
        raw = prepared.raw_batch(components)
        return components, components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(0))

    @staticmethod
    def _predict(
        components: ModelComponents,
        role: str,
        noisy: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        what: str = "predict_noise",
        conditional: bool = True,
    ) -> Tensor:
        with torch.no_grad():
            call = getattr(components.adapter, what)
            out: Tensor = call(components.bundle[role], noisy, t, batch, conditional=conditional)
        return out.clone()


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
        return max(self._calls.values())


def _along(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...]."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _free(batch: TrainingBatch) -> Tensor:
    """1 where latents are trained, 0 where they are given (conditioning frames, padding)."""
    if batch.loss_weight is None:
        return torch.ones_like(batch.latents)
    return (batch.loss_weight != 0).to(batch.latents.dtype).expand_as(batch.latents)


def _with_data(run: Mapping[str, Any], data: Path) -> dict[str, Any]:
    return {**run, "training": {**run["training"], "data_path": str(data)}}
