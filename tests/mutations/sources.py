"""Mistakes with values read from files, with several data sets, whose batches are mixed, and with masks of the loss."""

from __future__ import annotations

from tests.mutations.mutation import CORE, TRAINER, Mutation

DATA = "plugins/fastvideo-data/src/fastvideo_data"
DIFFUSERS = "plugins/fastvideo-diffusers/src/fastvideo_diffusers"
TESTS = "plugins/fastvideo-data/tests/test_data_sources.py"
MASKS = "plugins/fastvideo-data/tests/test_masks.py"
WAN = "plugins/fastvideo-wan/tests/test_batches.py"
SCAN = "plugins/fastvideo-data/tests/test_shared_scan.py"
PLAIN = "plugins/fastvideo-data/tests/test_plain_values.py"
RANKS = f"{TESTS}::test_all_ranks_have_the_same_source_and_shape_at_a_time"

SOURCES: tuple[Mutation, ...] = (
    Mutation(
        "every process looks at all files",
        f"{DATA}/loading/file_scan.py",
        "scan, paths[rank::size])",
        "scan, paths)",
        (f"{SCAN}::test_each_file_is_looked_at_once_in_all_and_batches_are_those_of_one_process[2]",),
    ),
    Mutation(
        "shares of the files come back one after the other",
        f"{DATA}/loading/file_scan.py",
        "for share in itertools.zip_longest(*shares) for one in share if one is not None",
        "for share in shares for one in share",
        (f"{SCAN}::test_each_file_is_looked_at_once_in_all_and_batches_are_those_of_one_process[2]",),
    ),
    Mutation(
        "a value's own length is not looked at",
        f"{DATA}/loading/plain_values.py",
        "return lengths.tolist() == [sizes[row] for row, _ in all_rows]",
        "return True",
        (f"{PLAIN}::test_damage_is_told_as_pyarrow_tells_it",),
    ),
    Mutation(
        "a page may be longer than its values",
        f"{DATA}/loading/plain_values.py",
        " or end - values != ends[row + count - 1] - before:",
        ":",
        (f"{PLAIN}::test_what_is_not_as_long_as_its_shape_says_is_not_read_straight",),
    ),
    Mutation(
        "each rank draws sources of its own",
        f"{DATA}/data_sources.py",
        "weights=weights, seed=seed)",
        "weights=weights, seed=seed + rank)",
        (RANKS,),
    ),
    Mutation(
        "each rank draws latent shapes of its own",
        f"{DATA}/loading/shared_order.py",
        "shapes = self._shapes(world_size, batch_size, self._segment)",
        "shapes = self._shapes(world_size, batch_size, self._segment + rank)",
        (RANKS,),
    ),
    Mutation(
        "the weights of sources ignored",
        f"{DATA}/data_sources.py",
        "1.0 if source.weight is None else source.weight for",
        "1.0 for",
        (f"{TESTS}::test_the_source_of_a_batch_is_drawn_by_weight_from_seed_and_number_alone",),
    ),
    Mutation(
        "a resumed run draws its sources from the start",
        f"{DATA}/loading/sources.py",
        'self._draws = int(state["draws"])',
        "self._draws = 0",
        (f"{TESTS}::test_resuming_goes_on_to_the_bit_at_every_number",),
    ),
    Mutation(
        "rows that were seen come again on another number of processes",
        f"{DATA}/loading/shared_order.py",
        "Segment(segment.world_size, segment.batch_size, int(count))",
        "Segment(segment.world_size, segment.batch_size, 0)",
        (f"{TESTS}::test_another_world_size_neither_repeats_nor_skips_a_row_of_a_source",),
    ),
    Mutation(
        "the loss weight of a source ignored",
        f"{CORE}/training/trainer.py",
        'loss_map["total_loss"] * weight}',
        'loss_map["total_loss"]}',
        (f"{TRAINER}::test_the_losses_of_a_batch_count_by_the_weight_of_its_source_and_are_logged_as_they_are",),
    ),
    Mutation(
        "a mask shifted in time",
        f"{DATA}/preprocessing/masks.py",
        "adaptive_avg_pool3d(values[:, 1:],",
        "adaptive_avg_pool3d(values[:, :-1],",
        (f"{MASKS}::test_a_mask_is_averaged_over_what_each_latent_is_of",),
    ),
    Mutation(
        "a mask at its own frame rate",
        f"{DATA}/preprocessing/masks.py",
        "fps=None if is_image(mask) else fps)",
        "fps=None)",
        (f"{MASKS}::test_a_mask_of_another_frame_rate_is_resampled_like_a_clip",),
    ),
    Mutation(
        "masks of the data ignored",
        f"{DIFFUSERS}/adapter.py",
        "normalise(latents, self.folder), loss_weight=weight)",
        "normalise(latents, self.folder))",
        (f"{WAN}::test_the_loss_counts_by_the_data_s_mask_and_masked_places_get_no_gradient",),
    ),
    Mutation(
        "a small mask takes from the video's part of the loss",
        "plugins/fastvideo-ltx/src/fastvideo_ltx/adapter.py",
        ".clamp(min=1e-6)), audio]",
        ".clamp(min=1)), audio]",
        ("plugins/fastvideo-ltx/tests/test_ltx2_adapter.py::test_a_mask_moves_nothing_between_the_streams",),
    ),
)
