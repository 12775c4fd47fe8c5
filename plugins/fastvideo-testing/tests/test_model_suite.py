"""The suite for families passes the toy family, and for each of its checks there is a wrong family that it catches."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fastvideo_testing import ModelPluginSuite, Packing
from fastvideo_testing.family_pipelines import PipelineChecks
from fastvideo_testing.family_round_trips import RoundTripChecks
from fastvideo_testing.family_samplers import SamplerChecks

from .made_family import run_check, suite_of

NO_FILES = "the toy family makes its data up and has no files"
UNSUPPORTED = dict.fromkeys(("tiny", "encoder", "export", "sampler", "outline", "packing", "pipeline"), NO_FILES)


class TestToy(ModelPluginSuite):
    plugin = "toy"
    path = "toy/learned"
    config: ClassVar[dict[str, float]] = {"flow_shift": 3.0, "width": 8}
    unsupported = UNSUPPORTED


CHECKS = [name for name in dir(ModelPluginSuite) if name.startswith("test_")]


@pytest.mark.parametrize("check", [name for name in CHECKS if "packing" not in name and "torch" not in name])
def test_a_good_family_passes(tmp_path: Path, check: str) -> None:
    run_check(suite_of(tmp_path), check, tmp_path)


ADAPTER = "class Adapter(ToyAdapter):\n"


def method(source: str) -> tuple[str, str]:
    """One more method of the adapter."""
    return ADAPTER, ADAPTER + "".join(f"    {line}\n" for line in source.splitlines())


PREDICT = "def predict_noise(self, handle, noisy_latents, t, batch, *, conditional, attn_kind='dense'):\n"
SUPER = "super().predict_noise(handle, noisy_latents, t, batch, conditional=conditional)"
HEARS = (
    "    def encode_texts",
    """\
    audio_sample_rate = 800

    def encode_audio(self, waveforms):
        return [sound[:1, :1] for sound in waveforms]

    def encode_texts""",
)
"""The encoder of a family that makes sound."""

WRONG = [
    (
        "test_a_caption_that_is_cut_is_told",
        [("float(len(caption))", "float(len(caption[:99]))")],
        "captions of 1100 and 2200 words are encoded alike",
    ),
    (
        "test_it_is_healthy_in_the_list_of_plug_ins",
        [("config=ToyConfig", 'config="surely_absent:Config"')],
        "shows it as BROKEN",
    ),
    (
        "test_every_option_says_what_it_means",
        [("SIZES =", "class Config(ToyConfig):\n    speed: int = 1\n\nSIZES ="), ("config=ToyConfig", "config=Config")],
        "Config has options without a meaning: speed",
    ),
    (
        "test_the_config_survives_being_written_and_read",
        [
            ("SIZES =", "class Config(ToyConfig):\n    tags: frozenset[str] = frozenset({'a'})\n\nSIZES ="),
            ("config=ToyConfig", "config=Config"),
        ],
        "Config does not survive the run.yaml",
    ),
    (
        "test_an_unknown_option_is_refused_by_name",
        [
            ("SIZES =", "class Config(ToyConfig):\n    model_config = {'extra': 'ignore'}\n\nSIZES ="),
            ("config=ToyConfig", "config=Config"),
        ],
        "Config accepts the unknown option",
    ),
    (
        "test_roles_are_what_the_contract_says",
        [("trainable=role.trainable", "trainable=True")],
        "teacher.trainable is True",
    ),
    (
        "test_roles_are_what_the_contract_says",
        [("block_classes=(nn.Linear,)", "block_classes=(nn.Conv3d,)")],
        "block_classes names Conv3d, and no module is one",
    ),
    (
        "test_it_has_every_primitive",
        [method("add_noise = None")],
        r"'add_noise' is a NoneType, not a method",
    ),
    (
        "test_it_has_every_primitive",
        [method("def feature_channels(self):\n    return (8,)")],
        r"feature_channels.*\n.*\n.*opt out of 'features'",
    ),
    (
        "test_batches_are_what_the_contract_says",
        [('raw_batch["vae_latent"][:, 0]', 'raw_batch["vae_latent"][:, 0].half()')],
        "latents are torch.float16, not float32",
    ),
    (
        "test_batches_are_what_the_contract_says",
        [("[:, 0, :1] / 10})", "[:1, 0, :1] / 10})")],
        r"conditioning\['condition'\] has shape \[1, 1\]; dim 0 is the batch, 2",
    ),
    (
        "test_it_draws_nothing_from_the_global_generator",
        [("        raw = {", "        torch.rand(1)\n        raw = {")],
        "drew from torch's global generator",
    ),
    (
        "test_zeros_have_the_shape_of_the_data",
        [('torch.zeros_like(latents) if latents_source == "zeros"', 'latents[:, :1] if latents_source == "zeros"')],
        r'latents_source="zeros" gives \[2, 1\], the data \[2, 2\]',
    ),
    ("test_captions_reach_the_conditioning", [("float(len(caption))", "1.0")], "two samples with other captions"),
    (
        "test_the_timestep_shift_keeps_order_and_range",
        [method("def shift_and_clamp_timestep(self, t):\n    return t * 3 / (1 + 2 * t / 1000)")],
        "shifted timesteps go from .* outside of 0 to 1000",
    ),
    (
        "test_noise_is_added_as_the_contract_says",
        [
            method(
                "def add_noise(self, clean_latents, noise, t):\n    s = self.sigma(t)[:, None]\n"
                "    return s * clean_latents + (1 - s) * noise"
            )
        ],
        r"add_noise \(x_t = \(1 - sigma\) x0 \+ sigma noise .* is off by",
    ),
    (
        "test_x0_prediction_and_noisy_latents_belong_together",
        [method("def prediction_target(self, clean_latents, noise, t):\n    return clean_latents - noise")],
        "it must be what predict_noise gave: is a sign or a sigma wrong in one of the three",
    ),
    (
        "test_x0_prediction_and_noisy_latents_belong_together",
        [
            method(
                PREDICT.replace("predict_noise", "predict_x0")
                + f"    return noisy_latents + self.sigma(t)[:, None] * {SUPER}"
            )
        ],
        "is a sign or a sigma wrong",
    ),
    (
        "test_the_handle_says_which_network_runs",
        [
            method(
                PREDICT
                + "    self.first = getattr(self, 'first', handle)\n    handle = self.first\n    return "
                + SUPER
            )
        ],
        "the adapter runs another network than the handle's",
    ),
    (
        "test_a_call_changes_none_of_its_inputs",
        [method(PREDICT + f"    out = {SUPER}\n    noisy_latents.mul_(2)\n    return out")],
        "predicting changed its input noisy_latents in place",
    ),
    (
        "test_timesteps_may_have_every_broadcastable_shape",
        [method("def sigma(self, t):\n    return t.flatten() / 1000 if t.ndim == 1 else t.flatten() / 900")],
        r"predict_x0 with t \[B, 1, \.\.\.\] instead of \[B\] is off by",
    ),
    (
        "test_noise_levels_change_the_prediction",
        [method(PREDICT + "    t = torch.full_like(t, 500.0)\n    return " + SUPER)],
        "the prediction does not depend on t",
    ),
    (
        "test_samples_of_a_batch_do_not_influence_each_other",
        [method(PREDICT + f"    out = {SUPER}\n    return out - out.mean(0, keepdim=True)")],
        "sample 0 predicted alone is off by .*leak between samples",
    ),
    (
        "test_the_negative_conditioning_is_another_one",
        [method(PREDICT + "    conditional = True\n    return " + SUPER)],
        "conditional=False predicts the same as conditional=True",
    ),
    (
        "test_the_negative_conditioning_is_another_one",
        [("[:, 0, :1] / 10})", "[:, 0, :1] / 10}, negative_conditioning=None)")],
        "after on_train_start, batches have no negative conditioning",
    ),
    (
        "test_guidance_is_one_call_and_none_too_many",
        [
            method(
                "def predict_x0_guided(self, handle, noisy_latents, t, batch, *, guidance_scale):\n"
                "    c, u = (self.predict_x0(handle, noisy_latents, t, batch, conditional=k) for k in (True, False))\n"
                "    return u + guidance_scale * (c - u)"
            )
        ],
        "predict_x0_guided at scale 3 runs the network 2 times, not once",
    ),
    (
        "test_guidance_is_one_call_and_none_too_many",
        [
            method(
                "def predict_x0_guided(self, handle, noisy_latents, t, batch, *, guidance_scale):\n"
                "    return super().predict_x0_guided(handle, noisy_latents, t, batch, guidance_scale=1 + guidance_scale)"
            )
        ],
        r"predict_x0_guided at scale 3 \(u \+ w \(c - u\)\) is off by",
    ),
    (
        "test_guidance_is_one_call_and_none_too_many",
        [
            method(
                "def predict_noise_guided(self, handle, noisy_latents, t, batch, *, guidance_scale):\n"
                "    return self.predict_x0_guided(handle, noisy_latents, t, batch, guidance_scale=guidance_scale)"
            )
        ],
        "predict_noise_guided at scale 3 .* is off by",
    ),
    (
        "test_the_context_holds_for_both_halves_of_guidance_and_for_dropped_captions",
        [("[:, 0, :1] / 10})", "[:, 0, :1] / 10}, context={'fps': torch.ones(1)})")],
        r"context 'fps' has shape \[1\] for 2 samples",
    ),
    (
        "test_gradients_reach_the_trained_role_only",
        [
            method(PREDICT + f"    return {SUPER} + (0 if handle.trainable else 0 * noisy_latents)"),
            ("class Adapter", "def _detached(x):\n    return x.detach()\n\nclass Adapter"),
            ("    return super().predict_noise", "    return _detached(super().predict_noise"),
            ("conditional=conditional) +", "conditional=conditional)) +"),
        ],
        "predict_x0 of the trained student has no graph",
    ),
    (
        "test_gradients_reach_the_trained_role_only",
        [method("def backward(self, loss, ctx, grad_accum_rounds=1):\n    loss.backward()")],
        r"backward\(\.\.\., grad_accum_rounds=2\) gives half of what 1 gives",
    ),
    (
        "test_the_tangent_is_the_derivative_along_the_flow",
        [method("supports_tangent = True"), method(PREDICT + "    t = (t * 7).round() / 7\n    return " + SUPER)],
        "is off by",
    ),
    (
        "test_it_trains_and_resumes",
        [
            (
                "        return replace(batch, cond",
                (
                    "        self.calls = getattr(self, 'calls', 0) + 1\n"
                    "        batch = replace(batch, latents=batch.latents * self.calls)\n"
                    "        return replace(batch, cond"
                ),
            )
        ],
        "a step, a resume and another step differ from two steps at once",
    ),
    (
        "test_features_have_the_channels_that_are_announced",
        [method("def feature_channels(self, handle):\n    return (7,)")],
        r"feature_channels says \(7,\), the features have \(8,\)",
    ),
    (
        "test_equal_seeds_write_equal_tiny_pipelines",
        [("torch.randn(shape, generator=generator)", "torch.randn(shape)")],
        "equal seeds write another net.pt",
    ),
    (
        "test_the_outline_is_of_the_networks_that_are_built",
        [
            (
                'RoleOutline(RoleHandle(role, {"transformer": ToyNetwork(*SIZES)}))',
                'RoleOutline(RoleHandle(role, {"transformer": ToyNetwork(2, 9, 1)}))',
            )
        ],
        "the outline of transformer has other parameters than the network that is built",
    ),
    (
        "test_the_outline_is_of_the_networks_that_are_built",
        [
            (
                'RoleOutline(RoleHandle(role, {"transformer": ToyNetwork(*SIZES)}))',
                'RoleOutline(RoleHandle(role, {"transformer": ToyNetwork(*SIZES)}), lambda n: torch.empty(2) @ torch.empty(3))',
            )
        ],
        r"calling the outline's network ends in RuntimeError: .*`call` of a DiffusersFamily",
    ),
    (
        "test_preprocessing_again_gives_the_same_latents",
        [("clip.float().mean((1, 2))", "torch.rand(1) + clip.float().mean((1, 2))")],
        "vae_latent, encoded twice, differs",
    ),
    (
        "test_an_exported_role_is_the_same_network",
        [
            (
                'torch.save(modules["transformer"]',
                'torch.save({k: v.half().float() for k, v in modules["transformer"].items()}',
            )
        ],
        "the output of the exported role, opened again, differs",
    ),
    (
        "test_equal_seeds_sample_equal_videos",
        [("torch.randn(1, 2, generator=generator)", "torch.randn(1, 2)")],
        "equal seeds give other videos",
    ),
    (
        "test_sampled_sound_is_as_long_as_the_video",
        [HEARS],
        "the family encodes the sound of clips, and samples videos without any",
    ),
    (
        "test_sampled_sound_is_as_long_as_the_video",
        [HEARS, ("SampledVideo(frames, 8.0)", "SampledVideo(frames, 8.0, torch.zeros(1, 100), 800)")],
        r"sound has shape \[1, 100\]; 0.375 s at 800 samples per second are \[channels, 300\]",
    ),
    (
        "test_a_path_without_a_model_is_the_user_s_error",
        [("raise ConfigError", "raise RuntimeError")],
        "a role whose path is an empty folder ends in RuntimeError: no network in .*; raise ConfigError",
    ),
]


@pytest.mark.parametrize(
    ("check", "changes", "message"), WRONG, ids=[f"{number}-{case[0][5:40]}" for number, case in enumerate(WRONG)]
)
def test_a_wrong_family_is_caught(tmp_path: Path, check: str, changes: list[tuple[str, str]], message: str) -> None:
    suite = suite_of(tmp_path, *changes)
    with pytest.raises(AssertionError, match=message):
        run_check(suite, check, tmp_path)


CLAMPS = method("def shift_and_clamp_timestep(self, t):\n    return super().shift_and_clamp_timestep(t).clamp(20, 980)")
UNCONDITIONED = [
    ('conditioning={"condition": raw_batch["text_embedding"][:, 0, :1] / 10}', "conditioning={}"),
    method(
        PREDICT + "    batch = replace(batch, conditioning={'condition': torch.zeros(len(noisy_latents), 1)})\n"
        f"    return {SUPER}"
    ),
]
ALLOWED = [
    ("test_roles_are_what_the_contract_says", [("(nn.Linear,)", "()")]),
    ("test_networks_and_blocks_are_called_as_modules", [("(nn.Linear,)", "()")]),
    ("test_it_trains_and_resumes", [("(nn.Linear,)", "()")]),
    ("test_the_timestep_shift_keeps_order_and_range", [CLAMPS]),
    ("test_flow_shift_moves_the_noise_levels_and_nothing_else", [CLAMPS]),
    ("test_sampler_and_adapter_shift_alike", [CLAMPS]),
    ("test_batches_are_what_the_contract_says", UNCONDITIONED),
    ("test_captions_reach_the_conditioning", UNCONDITIONED),
    ("test_gradients_reach_the_trained_role_only", UNCONDITIONED),
]


@pytest.mark.parametrize(("check", "changes"), ALLOWED)
def test_what_the_contract_allows_passes(tmp_path: Path, check: str, changes: list[tuple[str, str]]) -> None:
    """No blocks to shard by, a shift that clamps, a network that is conditioned on nothing."""
    suite = suite_of(tmp_path, *changes)
    with suppress(pytest.skip.Exception):
        run_check(suite, check, tmp_path)


def test_a_packing_that_loses_something_is_caught(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, unsupported={})
    parts = (torch.arange(6.0).reshape(1, 2, 3), torch.arange(3.0).reshape(1, 1, 3))

    def unpack(packed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return packed[:, :2], packed[:, 2:]

    good = Packing(lambda both: torch.cat(both, 1), unpack, parts)
    wrong = Packing(lambda both: torch.cat(both[::-1], 1), unpack, parts)
    type(suite).packing = lambda self, components: good  # type: ignore[method-assign, assignment, misc]
    run_check(suite, "test_packing_there_and_back_changes_nothing", tmp_path)
    type(suite).packing = lambda self, components: wrong  # type: ignore[method-assign, assignment, misc]
    (tmp_path / "again").mkdir()
    with pytest.raises(AssertionError, match="part 0 after packing and unpacking differs"):
        run_check(suite, "test_packing_there_and_back_changes_nothing", tmp_path / "again")


def test_every_check_has_a_wrong_family_that_it_catches() -> None:
    elsewhere = {
        "test_spec_and_config_load_without_torch",  # test_installed_plugins.py
        "test_packing_there_and_back_changes_nothing",  # above
    }
    for part in (SamplerChecks, PipelineChecks, RoundTripChecks):  # tests/kit_faults plants their faults, and of these:
        elsewhere |= {name for name in vars(part) if name.startswith("test_")}
    elsewhere |= {
        "test_the_tiny_pipeline_is_built_and_called",
        "test_flow_shift_moves_the_noise_levels_and_nothing_else",
        "test_nearby_noise_levels_are_told_apart",
        "test_the_negative_conditioning_is_an_encoded_text",
        "test_a_caption_reads_the_same_beside_a_longer_one",
        "test_networks_and_blocks_are_called_as_modules",
        "test_features_depend_on_the_network_s_output",
    }
    assert set(CHECKS) - {case[0] for case in WRONG} == elsewhere
