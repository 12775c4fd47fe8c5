"""Mistakes in merging LoRA files: how much a file counts, into which network, how often."""

from __future__ import annotations

from tests.mutations.mutation import CORE, Mutation

FILE = "plugins/fastvideo-diffusers/src/fastvideo_diffusers/merge_lora.py"
TESTS = "tests/test_merge_lora.py"
FUSED = f"{TESTS}::test_a_network_with_a_file_is_what_diffusers_fuses"

MERGED_LORA: tuple[Mutation, ...] = (
    Mutation("a merged LoRA's scale ignored", FILE, "name: file.scale * scale", "name: scale", (FUSED,)),
    Mutation("a merged LoRA's alpha ignored", FILE, "name: file.scale * scale", "name: file.scale", (FUSED,)),
    Mutation(
        "a LoRA file merged into every network", FILE, "module != self._module or up is None", "up is None", (FUSED,)
    ),
    Mutation(
        "a LoRA file merged twice",
        f"{CORE}/dispatch/role_weights.py",
        "for file in source.merged:",
        "for file in source.merged * 2:",
        (f"{TESTS}::test_all_weights_trained_on_it_are_in_the_checkpoint",),
    ),
)
