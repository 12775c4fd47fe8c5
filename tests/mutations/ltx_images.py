"""Mistakes in LTX's videos from images, in its two stages, and in its given levels."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

LTX = "plugins/fastvideo-ltx/src/fastvideo_ltx"
TESTS = "plugins/fastvideo-ltx/tests"
IMAGES = f"{TESTS}/test_image_to_video.py"
KEPT = f"{IMAGES}::test_a_given_first_frame_is_clean_at_level_zero_and_kept[tiny-ode]"
FEW_STEPS = f"{IMAGES}::test_a_few_step_student_goes_the_way_of_diffusers_own_class[tiny_ltx2-2]"
NOISE = f"{TESTS}/test_first_frame.py::test_noise_on_given_tokens_falls_with_the_square_of_the_level_and_is_not_in_x0"

LTX_IMAGES: tuple[Mutation, ...] = (
    Mutation(
        "the mask of given tokens inverted",
        f"{LTX}/adapter.py",
        "torch.where(given, torch.zeros_like(per_token), per_token)",
        "torch.where(given, per_token, torch.zeros_like(per_token))",
        (KEPT,),
    ),
    Mutation(
        "noise on given tokens that falls with the level itself",
        f"{LTX}/adapter.py",
        "(per_token / self.num_train_timesteps).square()",
        "(per_token / self.num_train_timesteps)",
        (NOISE,),
    ),
    Mutation(
        "given levels upside down",
        f"{LTX}/ltx2/sampler.py",
        "[t / self.folder.num_train_timesteps for t in timesteps]",
        "[1.001 - t / self.folder.num_train_timesteps for t in timesteps]",
        (FEW_STEPS,),
    ),
    Mutation(
        "an image that is not compressed as strongly as the clips",
        f"{LTX}/ltx2/sampler.py",
        "LTX2_5_IMAGE_CRF if latest else DEFAULT_IMAGE_CRF",
        "DEFAULT_IMAGE_CRF if latest else LTX2_5_IMAGE_CRF",
        (f"{IMAGES}::test_an_image_is_compressed_as_the_pipeline_compresses_it",),
    ),
    Mutation(
        "the last image a frame too early",
        f"{LTX}/ltx1/sampler.py",
        "(images.last, size.num_frames - 1)",
        "(images.last, size.num_frames - 2)",
        (f"{IMAGES}::test_many_steps_from_images_give_the_latents_of_diffusers_own_class[tiny_condition-2-3.0]",),
    ),
)
