"""Mistakes in how frames are given to a network that keeps them clean (Wan 2.2 TI2V, LTX)."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

WAN = "plugins/fastvideo-wan"
FIRST_FRAME = f"{WAN}/src/fastvideo_wan/first_frame.py"
TI2V = f"{WAN}/tests/test_ti2v.py"
ENTERS = f"{TI2V}::test_a_given_frame_enters_clean_and_at_zero_and_the_others_as_they_are"
PIPELINE = f"{TI2V}::test_predict_noise_is_what_the_pipeline_hands_its_scheduler_with_an_image"
ROLLOUT = f"{TI2V}::test_a_few_step_rollout_keeps_it"
LTX_TESTS = "plugins/fastvideo-ltx/tests/test_image_to_video.py"
LTX_KEPT = f"{LTX_TESTS}::test_a_given_first_frame_is_clean_at_level_zero_and_kept[tiny-ode]"
SAMPLING = f"{WAN}/tests/test_ti2v_sampling.py"

GIVEN_FRAMES: tuple[Mutation, ...] = (
    Mutation(
        "all frames but the first given",
        FIRST_FRAME,
        "torch.arange(frames, device=latents.device) == 0",
        "torch.arange(frames, device=latents.device) != 0",
        (ENTERS, PIPELINE),
    ),
    Mutation(
        "a given frame at the noise level of the others",
        FIRST_FRAME,
        "per_frame.masked_fill(given[:, 0, :, 0, 0], 0)",
        "per_frame + 0 * given[:, 0, :, 0, 0]",
        (ENTERS, PIPELINE),
    ),
    Mutation(
        "a loss on given frames",
        FIRST_FRAME,
        "(~given).float()",
        "torch.ones_like(given).float()",
        (f"{TI2V}::test_the_loss_does_not_see_it",),
    ),
    Mutation(
        "a given frame that enters noisy",
        FIRST_FRAME,
        "return kept(noisy, given, context[FIRST_FRAME]), ",
        "return noisy, ",
        (ENTERS, ROLLOUT),
    ),
    Mutation(
        "a given frame not kept in x0",
        "plugins/fastvideo-diffusers/src/fastvideo_diffusers/first_frame_adapter.py",
        "return x0 if GIVEN not in batch.context else kept(x0, *self.given_latents(batch.context))",
        "return x0",
        (ROLLOUT, LTX_KEPT, f"{TI2V}::test_it_stays_clean_in_x0_also_under_guidance_and_takes_no_gradient"),
    ),
    Mutation(
        "levels of tokens in the order of other frames",
        FIRST_FRAME,
        ".repeat_interleave(tokens, dim=1)",
        ".repeat(1, tokens)",
        (ENTERS, PIPELINE),
    ),
    Mutation(
        "a prompt's image left out of sampling",
        f"{WAN}/src/fastvideo_wan/sampler.py",
        "if not given:",
        "if True:",
        (f"{SAMPLING}::test_the_first_frame_of_the_result_is_the_image_s_own_latent",),
    ),
)
