"""Image-to-video: what is stored of the given frames, and that the network gets them as the pipeline gives them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DiffusionPipeline

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.data_set import EncodedBy
from fastvideo_data.prompt_fit import ImageUse
from fastvideo_data.run_checks import compare_encoders
from fastvideo_data.schema import encode_tensor
from fastvideo_testing.prepared_family import one_sample
from fastvideo_wan.encoder import WanEncoder
from fastvideo_wan.family import WanFamily
from fastvideo_wan.folder import open_folder
from fastvideo_wan.image_batches import BOTH_ENDS, CLIP_FEATURE, CONDITION, FEATURES, FIRST_FRAME, frames_mask
from fastvideo_wan.latents import denormalise

from .image_inputs import CAPTION, CPU, build, clips, plain, stored
from .test_encoders_of_the_data import with_other

VARIANTS = ("i2v", "flf2v", "i2v_a14b")


@pytest.fixture(scope="module")
def raw(tiny_images):
    """The raw batch of two clips, by variant; read only."""
    return {variant: stored(path, clips()) for variant, path in tiny_images.items()}


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "both_ends", "features", "use", "networks"),
    [
        ("i2v", False, (5, 16), ImageUse(("image_path",)), 1),
        ("flf2v", True, (5, 16), ImageUse(("image_path", "last_image_path")), 1),
        ("i2v_a14b", False, None, ImageUse(("image_path",), ("last_image_path",)), 2),
    ],
)
def test_a_folder_says_which_images_its_network_is_given(tiny_images, variant, both_ends, features, use, networks):
    folder = open_folder(tiny_images[variant], where="x")
    assert folder.pipeline == "WanImageToVideoPipeline"
    assert (folder.images.both_ends, folder.images.features) == (both_ends, features)
    assert folder.image_use == use
    assert len(folder.networks) == networks
    assert set(folder.components) == {entry.name for entry in Path(tiny_images[variant]).iterdir() if entry.is_dir()}


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("tokenizer/tokenizer_config.json", {"model_max_length": 256}, "is 256, and the network attends to an image's"),
        ("transformer/config.json", {"pos_embed_seq_len": 8}, "is 8\n    allowed: null, or 10: the 5 tokens of two"),
        ("transformer/config.json", {"added_kv_proj_dim": None}, "image_dim in transformer/ is 16 and added_kv_proj"),
        ("transformer/config.json", {"in_channels": 16}, "takes 16 channels\n    allowed: 36 channels"),
        ("image_encoder/config.json", {"hidden_size": 32}, "hidden_size in image_encoder/ is 32\n    allowed: 16"),
        ("image_encoder/config.json", {"patch_size": 0}, "image_encoder"),
        ("model_index.json", {"image_encoder": [None, None]}, "names no image_encoder, and image_dim"),
        ("model_index.json", {"_class_name": "WanPipeline"}, "takes 36 channels"),
    ],
)
def test_folders_that_contradict_themselves_are_refused(tiny_images, tmp_path, file, changes, message):
    copy = Path(shutil.copytree(tiny_images["i2v"], tmp_path / "copy"))
    (copy / file).write_text(json.dumps({**json.loads((copy / file).read_text()), **changes}))
    with pytest.raises(ConfigError) as error:
        open_folder(str(copy), where="roles.student.path")
    assert message in str(error.value)


def test_roles_of_other_given_frames_are_told_apart(tiny_images, tiny):
    spaces = [open_folder(path, where="x").latent_space for path in (tiny, *tiny_images.values())]
    for index, space in enumerate(spaces):
        assert all(space != other for other in spaces[:index])


# --- what is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_stored_is_what_the_pipeline_hands_its_network(tiny_images, raw, run_config, variant):
    """To the bit: mask, latents of the given frames, features of the image encoder, in their order along the channels."""
    pipeline = DiffusionPipeline.from_pretrained(tiny_images[variant])
    batch = build(run_config, tiny_images[variant]).adapter.prepare_batch(raw[variant])
    for index, video in enumerate(clips()):
        calls = []
        hook = pipeline.transformer.register_forward_pre_hook(
            lambda module, args, kwargs, calls=calls: calls.append(kwargs), with_kwargs=True
        )
        plain(tiny_images[variant], video, pipeline=pipeline, num_inference_steps=1)
        hook.remove()
        assert torch.equal(calls[0]["hidden_states"][:, 16:], batch.context[CONDITION][index : index + 1])
        features = calls[0]["encoder_hidden_states_image"]
        if variant == "i2v_a14b":
            assert features is None
            assert set(batch.context) == {CONDITION}
        else:
            own = batch.context[FEATURES][index]
            assert torch.equal(features, own if variant == "flf2v" else own[None])
    assert batch.loss_weight is None


def test_rows_have_fastvideo_s_names_and_those_of_both_ends_one_of_their_own(raw):
    shapes = {variant: {name: list(raw[variant][name].shape[1:]) for name in raw[variant] if "_latent" in name and
              torch.is_tensor(raw[variant][name])} for variant in raw}  # fmt: skip
    assert shapes == {
        "i2v": {"vae_latent": [16, 3, 4, 6], FIRST_FRAME: [16, 3, 4, 6]},
        "flf2v": {"vae_latent": [16, 3, 4, 6], BOTH_ENDS: [16, 3, 4, 6]},
        "i2v_a14b": {"vae_latent": [16, 3, 4, 6], FIRST_FRAME: [16, 3, 4, 6]},
    }
    assert list(raw["i2v"][CLIP_FEATURE].shape) == [2, 5, 16]
    assert list(raw["flf2v"][CLIP_FEATURE].shape) == [2, 2, 5, 16]
    assert CLIP_FEATURE not in raw["i2v_a14b"]
    for variant, name in (("i2v", FIRST_FRAME), ("flf2v", BOTH_ENDS), ("i2v_a14b", FIRST_FRAME)):
        assert (raw[variant]["vae_latent_normalised"], raw[variant][f"{name}_normalised"]) == (False, True)


def test_the_mask_has_a_channel_for_each_video_frame_of_a_latent_frame():
    assert frames_mask(3, 4, both_ends=False).tolist() == [[1, 0, 0]] * 4
    assert frames_mask(3, 4, both_ends=True).tolist() == [[1, 0, 0]] * 3 + [[1, 0, 1]]


def test_the_description_names_the_image_encoder(tiny_images):
    described = {variant: WanEncoder(path, CPU).describe() for variant, path in tiny_images.items()}
    assert ["image_encoder" in described[variant] for variant in VARIANTS] == [True, True, False]
    assert described["i2v"]["first_frame_latent_normalised"] == "true"
    assert described["flf2v"]["first_last_frame_latent_normalised"] == "true"


def test_clips_of_one_frame_have_no_last_one(tiny_images):
    geometry = open_folder(tiny_images["flf2v"], where="x").geometry
    with pytest.raises(DataError, match=r"num_frames is 1\n.*plus 1 from 5 on\n.*use 5"):
        geometry.check(height=32, width=48, num_frames=1)
    geometry.check(height=32, width=48, num_frames=5)
    assert WanEncoder(tiny_images["i2v"], CPU).encode_videos(clips(1, 1))[0][FIRST_FRAME].shape == (16, 1, 4, 6)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_the_first_frame_of_fewer_latent_frames_is_a_prefix_and_both_ends_are_not_cut(tiny_images, raw, run_config):
    adapter = build(run_config, tiny_images["i2v"]).adapter
    adapter._training = TrainingArgs(output_dir="x", max_train_steps=1, num_latent_t=2)
    cut = adapter.prepare_batch(raw["i2v"])
    short = adapter.prepare_batch(stored(tiny_images["i2v"], clips()[:, :5]))
    assert cut.latents.shape[2] == 2
    assert all(torch.equal(cut.context[key], short.context[key]) for key in (CONDITION, FEATURES))
    both = build(run_config, tiny_images["flf2v"]).adapter
    both._training = adapter._training
    with pytest.raises(DataError, match=r"first_last_frame_latent has shape \[16, 3, 4, 6\]"):
        both.prepare_batch(raw["flf2v"])


def test_latents_that_are_not_normalised_yet_become_it(tiny_images, raw, run_config):
    built = build(run_config, tiny_images["i2v_a14b"])
    batch = built.adapter.prepare_batch(raw["i2v_a14b"])
    plainly = denormalise(raw["i2v_a14b"][FIRST_FRAME], built.adapter.folder)
    again = built.adapter.prepare_batch({**raw["i2v_a14b"], FIRST_FRAME: plainly, f"{FIRST_FRAME}_normalised": False})
    torch.testing.assert_close(again.context, batch.context)
    silent = {key: value for key, value in raw["i2v_a14b"].items() if key != f"{FIRST_FRAME}_normalised"}
    assert torch.equal(built.adapter.prepare_batch(silent).context[CONDITION], batch.context[CONDITION])


def test_data_free_batches_take_the_images_of_the_rows(tiny_images, raw, run_config):
    adapter = build(run_config, tiny_images["i2v"]).adapter
    adapter._training = TrainingArgs(output_dir="x", max_train_steps=1, num_height=32, num_width=48, num_frames=5)
    batch = adapter.prepare_batch(raw["i2v"], latents_source="zeros")
    assert not batch.latents.any()
    assert batch.latents.shape == (2, 16, 2, 4, 6)
    assert torch.equal(batch.context[CONDITION], adapter.prepare_batch(raw["i2v"]).context[CONDITION][:, :, :2])
    without = {key: value for key, value in raw["i2v"].items() if key != FIRST_FRAME}
    with pytest.raises(DataError, match=r"sample clip 0.*holds no first_frame_latent.*is given the first frame"):
        adapter.prepare_batch(without, latents_source="zeros")


@pytest.mark.parametrize(
    ("variant", "name", "value", "message"),
    [
        ("i2v", FIRST_FRAME, torch.zeros(2, 16, 2, 4, 6), r"first_frame_latent has shape \[16, 2, 4, 6\]"),
        ("i2v", FIRST_FRAME, torch.zeros(2, 16, 3, 6, 4), r"first_frame_latent has shape \[16, 3, 6, 4\]"),
        ("i2v", CLIP_FEATURE, torch.zeros(2, 2, 5, 16), r"clip_feature has shape \[2, 5, 16\]"),
        ("flf2v", CLIP_FEATURE, torch.zeros(2, 5, 16), r"clip_feature has shape \[5, 16\]"),
    ],
)
def test_images_that_do_not_fit_name_the_sample(tiny_images, raw, run_config, variant, name, value, message):
    adapter = build(run_config, tiny_images[variant]).adapter
    with pytest.raises(DataError, match=message) as error:
        adapter.prepare_batch({**raw[variant], name: value})
    assert "sample clip 0" in str(error.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_data_of_a_run_holds_the_images_and_both_ends_are_never_cut(tiny_images, raw, run_config, variant):
    family, cfg = WanFamily(), run_config(paths={"student": tiny_images[variant]}, num_latent_t=2)
    images = (BOTH_ENDS if variant == "flf2v" else FIRST_FRAME, *((CLIP_FEATURE,) if variant != "i2v_a14b" else ()))
    assert family.wanted_tensors(cfg) == ("text_embedding", *images)
    one = {key: value[:1] if torch.is_tensor(value) else value for key, value in raw[variant].items()}
    if variant == "flf2v":
        with pytest.raises(ConfigError, match=r"num_latent_t: found 2.*is given the last frame too"):
            family.check_row(cfg, one, "data")
    else:
        family.check_row(cfg, one, "data")
    names = [encoder.name for encoder in family.encoders(cfg, "zeros")]
    assert names == ["vae", "text_encoder", "image_encoder"][: 2 if variant == "i2v_a14b" else 3]


def test_fastvideo_s_rows_are_read_unchanged(tiny_images, raw, run_config, tmp_path):
    """Its columns, no word of normalisation, and an absent tensor as three empty values; Wan 2.2's have no CLIP feature."""
    for variant in ("i2v", "i2v_a14b"):
        row = {"id": "clip 0", "file_name": "0.mp4", "caption": CAPTION, "media_type": "video"}
        row |= {"width": 48, "height": 32, "num_frames": 3, "duration_sec": 0.5, "fps": 16.0}
        for name in ("vae_latent", "text_embedding", FIRST_FRAME, CLIP_FEATURE, "pil_image"):
            data, shape, dtype = (f"{name}_{part}" for part in ("bytes", "shape", "dtype"))
            row |= {data: b"", shape: [], dtype: ""}
            if name in raw[variant]:
                row |= encode_tensor(name, raw[variant][name][0].contiguous())
        folder = tmp_path / variant
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist([row]), folder / "chunk_0.parquet")
        cfg = run_config(paths={"student": tiny_images[variant]}, data_path=str(folder))
        family = WanFamily()
        (read,) = family.rows(cfg)
        assert CLIP_FEATURE in read or variant == "i2v_a14b"
        assert (read["vae_latent_normalised"], read[f"{FIRST_FRAME}_normalised"]) == (False, True)
        adapter = build(run_config, tiny_images[variant]).adapter
        found, expected = adapter.prepare_batch(read), one_sample(adapter.prepare_batch(raw[variant]), 0)
        assert torch.equal(found.latents, expected.latents)
        assert set(found.context) == set(expected.context)
        assert all(torch.equal(found.context[key], expected.context[key]) for key in expected.context)


def test_data_of_another_image_encoder_is_refused(tiny_images, run_config, tmp_path):
    described = EncodedBy(Path("part.parquet"), WanEncoder(tiny_images["i2v"], CPU).describe())
    other = with_other(tiny_images["i2v"], "image_encoder", tmp_path / "other")
    problems = []
    for path in (tiny_images["i2v"], other):
        cfg = run_config(paths={"student": path})
        own = WanFamily().encoder_identity(cfg, latents_source="zeros", download=False)
        problems.append(compare_encoders("data", [described], own).problems)
    assert problems[0] == ()
    (problem,) = problems[1]
    assert problem.found.startswith("image_encoder ")
    assert problem.found.count(" made it") == 1


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_predictions_are_what_the_pipeline_hands_its_scheduler(tiny_images, raw, run_config, variant):
    """With guidance, whose unconditional half keeps the images; on both sides of the boundary where there is one."""
    built = build(run_config, tiny_images[variant])
    adapter, student = built.adapter, built.bundle["student"]
    scales = {"guidance_scale": 3.0} | ({"guidance_scale_2": 2.0} if variant == "i2v_a14b" else {})
    _, handed = plain(tiny_images[variant], clips()[1], **scales)
    batch = one_sample(adapter.prepare_batch(raw[variant]), 1)
    boundary = 900.0 if variant == "i2v_a14b" else 0.0
    assert {bool(t >= boundary) for _, t, _ in handed} == ({True, False} if boundary else {True})
    for prediction, t, x in handed:
        scale = scales["guidance_scale"] if t >= boundary else scales["guidance_scale_2"]
        with torch.no_grad():
            halves = [
                adapter.predict_noise(student, x, t, batch, conditional=conditional) for conditional in (True, False)
            ]
            guided = adapter.predict_noise_guided(student, x, t[None], batch, guidance_scale=scale)
        assert torch.equal(halves[1] + scale * (halves[0] - halves[1]), prediction)
        torch.testing.assert_close(guided, prediction, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_of_two_images_is_two_batches_of_one(tiny_images, raw, run_config, variant):
    built = build(run_config, tiny_images[variant])
    batch = built.adapter.prepare_batch(raw[variant])
    noisy = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    for t in (torch.tensor([910.0, 990.0]), torch.tensor([300.0, 700.0])):
        with torch.no_grad():
            both = built.adapter.predict_noise(built.bundle["student"], noisy, t, batch, conditional=True)
            for index in range(2):
                part = slice(index, index + 1)
                alone = one_sample(batch, index)
                one = built.adapter.predict_noise(
                    built.bundle["student"], noisy[part], t[part], alone, conditional=True
                )
                torch.testing.assert_close(one, both[part], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_estimate_calls_the_network_as_the_adapter_does(tiny_images, raw, run_config, variant):
    built = build(run_config, tiny_images[variant])
    batch = built.adapter.prepare_batch(raw[variant])
    network = built.bundle["student"].modules["transformer"]
    cfg = run_config(paths={"student": tiny_images[variant]}, num_height=32, num_width=48, num_frames=9)
    family = WanFamily()
    evaluate = family.call(cfg, family.roles(cfg).base, network, "zeros")
    shapes = []

    def note(module, args, kwargs):
        shapes.append({name: None if value is None else list(value.shape) for name, value in kwargs.items()
                       if name not in ("return_dict", "timestep")})  # fmt: skip

    with torch.no_grad():
        hook = network.register_forward_pre_hook(note, with_kwargs=True)
        evaluate(2)
        built.adapter.predict_noise(
            built.bundle["student"], batch.latents, torch.tensor([950.0]), batch, conditional=True
        )
        hook.remove()
    assert shapes[0] == shapes[1]
