"""Mistakes in how frozen weights are held in fewer bits."""

from __future__ import annotations

from tests.mutations.mutation import CORE, Mutation

FILE = "plugins/fastvideo-diffusers/src/fastvideo_diffusers/quantised.py"
TESTS = "plugins/fastvideo-diffusers/tests/test_quantised.py"
TO_THE_BIT = f"{TESTS}::test_fp8_is_to_the_bit_the_net_of_the_weights_it_stands_for"
OF_ROWS = f"{TESTS}::test_rows_of_what_is_held_are_made_of_the_same_rows_of_the_weight"

BASE_PRECISION: tuple[Mutation, ...] = (
    Mutation(
        "a scale of fp8 for each input",
        FILE,
        "weight.abs().amax(1, keepdim=True)",
        "weight.abs().amax(0, keepdim=True)",
        (f"{TESTS}::test_every_row_has_a_scale_of_its_own_so_that_no_weight_is_off_by_more_than_a_sixteenth", OF_ROWS),
    ),
    Mutation(
        "the gradient through a held weight negated",
        FILE,
        "return gradient @ ctx",
        "return -gradient @ ctx",
        (TO_THE_BIT,),
    ),
    Mutation(
        "a rank's rows held as the first ones",
        FILE,
        'self._below.read(module, f"{layer}.weight", rows)',
        'self._below.read(module, f"{layer}.weight", rows and slice(rows.stop - rows.start))',
        (OF_ROWS,),
    ),
    Mutation(
        "a merged export of rounded weights",
        f"{CORE}/weights/lora.py",
        "return weight.float() + self._scale",
        "return weight.to(torch.float8_e4m3fn).float() + self._scale",
        ("tests/test_base_precision.py::test_a_merged_export_adds_adapters_to_the_pipeline_s_own_weights",),
    ),
)
