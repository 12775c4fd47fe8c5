"""Mistakes with LoRA files: how much one counts, into which network it is merged and how often, what is written and read."""

from __future__ import annotations

from tests.mutations.mutation import CORE, Mutation

FILE = "plugins/fastvideo-diffusers/src/fastvideo_diffusers/merge_lora.py"
TESTS = "tests/test_merge_lora.py"
SPELLING = "plugins/fastvideo-diffusers/src/fastvideo_diffusers/lora_formats.py"
FORMATS = "tests/test_lora_formats.py"
CONVERTED = f"{FORMATS}::test_diffusers_converter_makes_the_adapters_of_a_file_again"
BEGUN = f"{FORMATS}::test_adapters_start_from_a_file_to_the_bit"
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
        ("tests/test_merge_lora_runs.py::test_all_weights_trained_on_it_are_in_the_checkpoint",),
    ),
    Mutation(
        "alpha left out of exported adapters", SPELLING, "lora.scale * lora.rank", "float(lora.rank)", (CONVERTED,)
    ),
    Mutation("the scale of layers without alpha left out", SPELLING, "up * lora.scale", "up", (CONVERTED,)),
    Mutation(
        "A and B of exported adapters swapped",
        SPELLING,
        '("lora_down", "lora_up")',
        '("lora_up", "lora_down")',
        (CONVERTED,),
    ),
    Mutation(
        "the file that adapters start from not read",
        f"{CORE}/dispatch/runtime.py",
        "cfg.training.seed, run.initial_lora(handle)",
        "cfg.training.seed",
        (BEGUN,),
    ),
    Mutation(
        "adapters that start from a file scaled twice",
        "plugins/fastvideo-diffusers/src/fastvideo_diffusers/lora_file.py",
        "tensors, _ = _of_network(pipeline.lora_state_dict(plain), index)",
        "",
        (BEGUN,),
    ),
)
