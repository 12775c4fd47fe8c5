"""Mistakes in what waits in host memory: which blocks, which weights of them, and what recomputed blocks keep."""

from __future__ import annotations

from tests.mutations.mutation import CORE, Mutation

SHARD = f"{CORE}/placing/shard.py"
TESTS = "core/tests/placing/test_placing.py"
BLOCKS = f"{TESTS}::test_the_last_blocks_below_adapters_wait_in_host_memory_and_all_gradients_are_the_same_bits"
INPUTS = f"{TESTS}::test_inputs_of_recomputed_blocks_alone_are_kept_on_the_host_and_gradients_are_the_same_bits"

HOST_MEMORY: tuple[Mutation, ...] = (
    Mutation(
        "adapters wait in host memory with their base",
        SHARD,
        "for key, p in part.named_parameters() if not is_lora_parameter(key)}",
        "for key, p in part.named_parameters()}",
        (BLOCKS,),
    ),
    Mutation("the first blocks wait in place of the last", SHARD, "[-n:]", "[:n]", (BLOCKS,)),
    Mutation(
        "blocks below adapters stay on the device",
        SHARD,
        "n and (handle.lora is not None or not changes)",
        "n and not changes",
        (BLOCKS,),
    ),
    Mutation(
        "block inputs stay on the device",
        SHARD,
        "if training.offload_activations else nullcontext",
        "if False else nullcontext",
        (INPUTS,),
    ),
    Mutation(
        "block inputs in host memory that is not pinned",
        SHARD,
        'pin_memory=context.device().type == "cuda")\n    keeping =',
        "pin_memory=False)\n    keeping =",
        (INPUTS,),
    ),
)
