"""Mistakes in how images reach a network that has them as channels beside the noise (Wan I2V, FLF2V, I2V-A14B)."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

WAN = "plugins/fastvideo-wan"
BATCHES = f"{WAN}/src/fastvideo_wan/image_batches.py"
NETWORK = f"{WAN}/src/fastvideo_wan/network.py"
IMAGES = f"{WAN}/tests/test_images.py"
STORED = f"{IMAGES}::test_what_is_stored_is_what_the_pipeline_hands_its_network"
MASK = f"{IMAGES}::test_the_mask_has_a_channel_for_each_video_frame_of_a_latent_frame"
PREDICTIONS = f"{IMAGES}::test_predictions_are_what_the_pipeline_hands_its_scheduler"

GIVEN_IMAGES: tuple[Mutation, ...] = (
    Mutation(
        "the mask behind the latents of the given frames",
        BATCHES,
        "torch.cat([mask, latents], dim=1)",
        "torch.cat([latents, mask], dim=1)",
        (f"{STORED}[i2v]",),
    ),
    Mutation(
        "the last frame in the first channel of the mask",
        BATCHES,
        "mask[-1, -1] = 1",
        "mask[0, -1] = 1",
        (MASK, f"{STORED}[flf2v]"),
    ),
    Mutation(
        "the noise behind the given frames",
        NETWORK,
        "torch.cat([noisy, condition], dim=1)",
        "torch.cat([condition, noisy], dim=1)",
        (f"{PREDICTIONS}[i2v_a14b]",),
    ),
    Mutation(
        "the image encoder's last hidden state",
        f"{WAN}/src/fastvideo_wan/image_encoder.py",
        ".hidden_states[-2]",
        ".hidden_states[-1]",
        (f"{STORED}[i2v]",),
    ),
    Mutation(
        "the image left out of the unconditional half",
        f"{WAN}/src/fastvideo_wan/adapter.py",
        "images = {",
        "given = given if conditioning is batch.conditioning else {k: 0 * v for k, v in given.items()}\n        images = {",
        (f"{PREDICTIONS}[i2v]",),
    ),
    Mutation(
        "the latents of the given frames normalised twice",
        BATCHES,
        'raw_batch.get(f"{name}_normalised", True)',
        'raw_batch.get(f"{name}_normalised", True) is None',
        (f"{STORED}[i2v]",),
    ),
    Mutation(
        "the last frame where the pipeline has grey",
        f"{WAN}/src/fastvideo_wan/encoder.py",
        "if images.both_ends else [0]\n        video",
        "if not images.both_ends else [0]\n        video",
        (f"{STORED}[i2v]", f"{STORED}[flf2v]"),
    ),
)
