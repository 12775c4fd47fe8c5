"""What a family offers to commands must do: `tiny`, `check`, `preprocess`, `export` and `sample` call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_core.dispatch.memory_estimate import estimate_run
from fastvideo_core.dispatch.role_weights import load_role, role_source
from fastvideo_core.errors import UserError
from fastvideo_data.captions import caption_cut
from fastvideo_testing.compare import assert_equal, loudest
from fastvideo_testing.family_suite import FamilySuite
from fastvideo_testing.prepared_family import CAPTIONS, PreparedFamily, disturb, encode_clips, files_of, noisy_input
from fastvideo_testing.runs import load_config, resolve_run
from fastvideo_testing.suite import needs

_LONG_CAPTION = 1100
"""Words; more tokens than most text encoders read."""


class TargetChecks(FamilySuite):
    """Tiny pipelines, outlines, data, exported folders, samples and packing."""

    @needs("tiny")
    def test_equal_seeds_write_equal_tiny_pipelines(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        write, state = self._family("tiny").tiny, torch.get_rng_state()
        for name, seed in (("one", 0), ("two", 0), ("three", 1)):
            write(tmp_path / name, seed=seed, **self.tiny)
        one, two, three = (files_of(tmp_path / name) for name in ("one", "two", "three"))
        differing = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
        assert not differing, (
            f"equal seeds write another {differing[0]}: seed what draws the weights (torch.manual_seed(seed) inside of "
            "torch.random.fork_rng)"
        )
        assert one != three, "another seed writes the same weights"
        assert torch.equal(state, torch.get_rng_state()), "writing a tiny pipeline moved torch's global generator"

    @needs("tiny")
    def test_the_tiny_pipeline_is_built_and_called(self, prepared: PreparedFamily) -> None:
        try:
            components, batch = self._batch(prepared)
            _, t, noisy = noisy_input(components, batch)
            self._predict(components, "student", noisy, t, batch)
        except Exception as error:
            raise AssertionError(
                f"what `tiny` writes cannot be built and trained on with data of its own encoder: {type(error).__name__}: "
                f"{error}"
            ) from error

    @needs("outline")
    def test_the_outline_is_of_the_networks_that_are_built(self, prepared: PreparedFamily) -> None:
        built = prepared.components().bundle["student"]
        run = resolve_run(prepared.folder, prepared.run)
        outline = run.outline("student")
        assert outline is not None, (
            f"{self.called()} has no `outline`; define it, or opt out of 'outline' in `unsupported`"
        )
        networks = outline.handle.modules
        assert set(networks) == set(built.modules), (
            f"the outline has {sorted(networks)}, the role has the modules {sorted(built.modules)}"
        )
        for name, network in networks.items():
            real = [(key, list(p.shape)) for key, p in network.named_parameters() if not p.is_meta]
            assert not real, f"the outline's {real[0][0]} takes memory; build it on the meta device"
            shapes = {key: list(p.shape) for key, p in network.named_parameters()}
            wanted = {key: list(p.shape) for key, p in built.modules[name].named_parameters()}
            assert shapes == wanted, f"the outline of {name} has other parameters than the network that is built"
        try:
            estimate_run(run)
        except Exception as error:
            said = f"{type(error).__name__}: {error}".rstrip(".")
            raise AssertionError(
                f"calling the outline's network ends in {said}; does its `evaluate` (`call` of a DiffusersFamily) call it with "
                "the shapes of training, all made of torch.empty?"
            ) from error

    @needs("encoder")
    def test_preprocessing_again_gives_the_same_latents(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        assert prepared.clip is not None
        encoder = self._encoder(prepared.run)
        description = encoder.describe()
        assert description.get("latents_normalised") in ("true", "false"), (
            f"describe() says latents_normalised={description.get('latents_normalised')!r}, not 'true' or 'false'"
        )
        encode_clips(encoder, prepared.folder / "clips", tmp_path / "data", prepared.clip)
        again = replace(prepared, run=_with_data(prepared.run, tmp_path / "data"))
        components = prepared.components()
        first, second = (one.raw_batch(components) for one in (prepared, again))
        for name in (name for name, value in first.items() if isinstance(value, Tensor)):
            assert_equal(f"{name}, encoded twice,", second[name], first[name])

    @needs("encoder")
    def test_a_caption_that_is_cut_is_told(self, prepared: PreparedFamily) -> None:
        encoder = self._encoder(prepared.run)
        long = "a " * _LONG_CAPTION
        one, longer = encoder.encode_texts([long, long + long])
        if torch.equal(one, longer):  # nothing of the second half is seen
            assert caption_cut(encoder, long + long) is not None, (
                f"captions of {_LONG_CAPTION} and {2 * _LONG_CAPTION} words are encoded alike, and the encoder does not "
                "say that it cuts them: give it caption_cut (fastvideo_data.captions.CutsCaptions)"
            )
        assert caption_cut(encoder, CAPTIONS[0]) is None, f"caption_cut says that {CAPTIONS[0]!r} is cut"

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
        self._family("export").export(base, tmp_path / "out", modules, pipeline_config=section, student_schedule=None)
        try:
            again = prepared.components(student=str(tmp_path / "out"))
        except Exception as error:
            raise AssertionError(
                f"what `export` wrote cannot be opened as a role: {error}; it must have the keys and files of the family's "
                "own format"
            ) from error
        after = self._predict(again, "student", noisy, t, batch)
        assert_equal(
            "the output of the exported role, opened again,", after, before,
            advice="`export` writes the weights of `modules`; from `base_path` comes what is not trained",
        )  # fmt: skip

    @needs("sampler")
    def test_equal_seeds_sample_equal_videos(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        first, same, other = self._sampled(prepared, tmp_path, seeds=(0, 0, 1))
        assert first.frames.dtype == torch.uint8, f"frames are {first.frames.dtype}, not uint8 [T, H, W, 3]"
        assert first.frames.ndim == 4, f"frames have shape {list(first.frames.shape)}, not [T, H, W, 3]"
        assert first.frames.shape[-1] == 3, f"frames have shape {list(first.frames.shape)}, not [T, H, W, 3]"
        for name, one, again in (("videos", first.frames, same.frames), ("sound", first.audio, same.audio)):
            equal = one is again or (one is not None and again is not None and torch.equal(one, again))
            assert equal, f"equal seeds give other {name}: draw from the generator only"
        assert not torch.equal(first.frames, other.frames), "another seed gives the same video: is the generator used?"

    @needs("sampler")
    @needs("sound")
    def test_sampled_sound_is_as_long_as_the_video(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        if not prepared.sound:
            pytest.skip("the family encodes no sound")
        (video,) = self._sampled(prepared, tmp_path, seeds=(0,))
        assert video.audio is not None, "the family encodes the sound of clips, and samples videos without any"
        assert video.sample_rate is not None, "a sampled video has sound, and no sample_rate"
        seconds = len(video.frames) / video.fps
        wanted = round(seconds * video.sample_rate)
        shape = list(video.audio.shape)
        assert shape in ([1, wanted], [2, wanted]), (
            f"sound has shape {shape}; {seconds:.3f} s at {video.sample_rate} samples per second are [channels, {wanted}]"
        )
        assert loudest({"": video.audio}) <= 1, "sound leaves [-1, 1]"

    def _sampled(self, prepared: PreparedFamily, folder: Path, *, seeds: Sequence[int]) -> list[SampledVideo]:
        """A video of two steps for every seed."""
        registry, plugin = self.found()
        section = registry.config_class(plugin).model_validate(dict(self.config))
        base = prepared.run["roles"]["student"]["path"]
        family = self._family("sampler")
        sampler = family.sampler(base, section, device=torch.device("cpu"))
        cfg = load_config(prepared.folder, prepared.run)
        load_role(sampler.handle, role_source("student", cfg.roles["student"]), family)
        clip = prepared.clip or self.clip
        files = sorted((prepared.folder / "clips").glob("*.mp4"))
        images: Any = self.prompt_images(prepared, files[0]) if files else {}
        prompt = ValidationPrompt(CAPTIONS[0], **images)
        if clip is not None:
            prompt = replace(prompt, height=clip.height, width=clip.width, num_frames=clip.num_frames)
        total = float(prepared.components().adapter.num_train_timesteps)  # type: ignore[attr-defined]
        levels = (total, total / 2)
        request = ValidationRequest(sampler.handle, folder, sampler_kind="ode", sampling_timesteps=levels)
        with torch.no_grad():
            return [sampler.sample(request, prompt, torch.Generator().manual_seed(seed)) for seed in seeds]

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


def _with_data(run: Mapping[str, Any], data: Path) -> dict[str, Any]:
    return {**run, "training": {**run["training"], "data_path": str(data)}}
