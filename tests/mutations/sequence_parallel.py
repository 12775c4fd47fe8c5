"""Mistakes where processes share a sample: whose samples, what is exchanged, how gradients go back."""

from __future__ import annotations

from tests.mutations.mutation import CORE, Mutation

SOURCE = "plugins/fastvideo-diffusers/src/fastvideo_diffusers/sequence_parallel.py"
WAN = "plugins/fastvideo-wan/src/fastvideo_wan/network.py"
LTX2 = "plugins/fastvideo-ltx/src/fastvideo_ltx/ltx2/network.py"
LTX_SHARED = "plugins/fastvideo-ltx/tests/test_split_tokens.py::test_shares_of"
SHARED = "plugins/fastvideo-wan/tests/test_split_tokens.py::test_they_give_its_output_to_the_bit_and_their_mean_its_gradients"
MESH = "core/tests/distributed/test_mesh.py::test_processes_that_share_samples_draw_and_read_alike"
RESUMED = "core/tests/checkpoint/test_rank_state.py::test_who_goes_on_with_whose_random_state"

SEQUENCE_PARALLEL: tuple[Mutation, ...] = (
    Mutation(
        "random streams by the world's rank",
        f"{CORE}/contracts/method.py",
        "RandomStreams(cfg.training.seed, self.mesh.data_rank,",
        "RandomStreams(cfg.training.seed, context.rank(),",
        (MESH,),
    ),
    Mutation(
        "every process has samples of its own",
        f"{CORE}/distributed/context.py",
        "rank() // training.sequence_parallel, world_size() // training.sequence_parallel",
        "rank(), world_size()",
        (MESH,),
    ),
    Mutation(
        "a share gets its own loss's gradient alone",
        SOURCE,
        "received.reshape(ctx.group.size(), -1, *received.shape[1:]).sum(0), None, None",
        "gradient.chunk(ctx.group.size(), ctx.dim)[ctx.group.rank()], None, None",
        (f"{SHARED}[text-2]",),
    ),
    Mutation(
        "heads sent back in the order of tokens",
        SOURCE,
        "return _exchanged(gradient, ctx.group, ctx.joined, ctx.divided), None, None, None",
        "return _exchanged(gradient, ctx.group, ctx.divided, ctx.joined), None, None, None",
        (f"{SHARED}[text-2]",),
    ),
    Mutation(
        "the output is not gathered",
        SOURCE,
        "lambda module, args, output: _gathered(output, group)",
        "lambda module, args, output: output",
        (f"{SHARED}[text-2]",),
    ),
    Mutation(
        "levels of tokens are not shared out",
        SOURCE,
        '    _share_input(network, group, "timestep")\n',
        "",
        (f"{SHARED}[levels by token, twice-2]", f"{LTX_SHARED}_ltx_video_are_the_whole[levels by token, twice-4]"),
    ),
    Mutation(
        "gates are not exchanged",
        WAN,
        "exchange_heads(block.attn1, group, getattr(block, GATE, None))",
        "exchange_heads(block.attn1, group)",
        (f"{SHARED}[sparse-2]",),
    ),
    Mutation(
        "features of a share alone",
        SOURCE,
        "    setattr(network, _GROUP, group)  # for `whole_tokens`\n",
        "",
        (f"{SHARED}[features-2]",),
    ),
    Mutation(
        "random state by rank where groups changed",
        f"{CORE}/checkpoint/rank_state.py",
        "return rank // now * then + min(rank % now, then - 1)",
        "return rank",
        (RESUMED,),
    ),
    Mutation(
        "LTX: all heads turn by the first ones' angles",
        SOURCE,
        "tuple(_share(one, group, CHANNELS if one.ndim == 3 else 1) for one in output)",
        "tuple(one.chunk(group.size(), CHANNELS if one.ndim == 3 else 1)[0] for one in output)",
        (f"{LTX_SHARED}_ltx_video_are_the_whole[one level-2]", f"{LTX_SHARED}_ltx2_are_the_whole[one level-2]"),
    ),
    Mutation(
        "LTX-2: the sound sees a share of the video",
        LTX2,
        "exchange_heads(of_audio, group, of_audio.to_gate_logits, queries_whole=True)",
        "pass",
        (f"{LTX_SHARED}_ltx2_are_the_whole[one level-2]",),
    ),
    Mutation(
        "LTX-2: each process adds its own heads' part of the sound alone",
        SOURCE,
        "_gathered(args[0], group, CHANNELS) if queries_whole",
        "args[0].repeat(1, 1, group.size()) if queries_whole",
        (f"{LTX_SHARED}_ltx2_are_the_whole[one level-2]",),
    ),
)
