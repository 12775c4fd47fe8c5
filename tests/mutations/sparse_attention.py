"""Mistakes in sparse attention: which tiles are chosen, what the gate is for, padding, the ramp, recomputed blocks."""

from __future__ import annotations

from tests.mutations.mutation import CORE, Mutation

SOURCE = "plugins/fastvideo-diffusers/src/fastvideo_diffusers/sparse_attention.py"
WAN = "plugins/fastvideo-wan/src/fastvideo_wan"
TESTS = "plugins/fastvideo-diffusers/tests/test_sparse_attention.py"
LOOPS = f"{TESTS}::test_a_query_tile_attends_to_the_tiles_of_the_highest_scores_alone"
BLOCKS = f"{TESTS}::test_the_blocks_that_a_gpu_computes_are_the_tokens_of_the_mask"

SPARSE_ATTENTION: tuple[Mutation, ...] = (
    Mutation(
        "tiles chosen by the wrong axis", SOURCE, "scores.shape[-1]), dim=-1)", "scores.shape[-1]), dim=-2)", (LOOPS,)
    ),
    Mutation(
        "a gate on the fine stage",
        SOURCE,
        "fine + (coarse if gate is None else coarse * gate)",
        "coarse + fine * gate",
        (LOOPS,),
    ),
    Mutation(
        "padding counts in a tile's mean", SOURCE, "self.present.sum(1, dtype=wide)[:, None]", "self.volume", (LOOPS,)
    ),
    Mutation("padding is attended to by blocks", SOURCE, "k // volume] & present[k]", "k // volume]", (BLOCKS,)),
    Mutation(
        "blocks attend to all tiles",
        SOURCE,
        "kept[b, h, q // volume, k // volume] & present[k]",
        "present[k]",
        (BLOCKS,),
    ),
    Mutation(
        "the ramp divides floats",
        f"{CORE}/config/training.py",
        "math.ceil(self.VSA_sparsity / rate - 1e-9)",
        "self.VSA_sparsity // rate",
        ("core/tests/training/test_sparsity_ramp.py::test_it_rises_in_whole_steps_and_reaches_its_end[0.9-0.1-9]",),
    ),
    Mutation(
        "a block is recomputed densely",
        f"{WAN}/sparse.py",
        "handle.bindings += (calls.binding,)",
        "pass",
        ("plugins/fastvideo-wan/tests/test_sparse.py::test_a_recomputed_block_attends_as_it_was_called",),
    ),
    Mutation(
        "the rotation turns backwards",
        f"{WAN}/sparse.py",
        "first * cos - second * sin, first * sin + second * cos",
        "first * cos + second * sin, second * cos - first * sin",
        ("plugins/fastvideo-wan/tests/test_sparse.py::test_a_sparse_call_that_leaves_nothing_out_is_the_dense_one",),
    ),
)
