"""Mistakes in whom a call reaches: families, networks for ranges of noise levels, both halves of guidance, shared samples."""

from __future__ import annotations

from tests.mutations.mutation import CORE, Mutation

RANGES = "core/tests/contracts/test_noise_ranges.py"
ONE_RANGE = f"{RANGES}::test_an_iteration_has_one_range_on_all_ranks_and_in_all_rounds_and_the_run_has_both"
COMMON = f"{RANGES}::test_all_roles_that_are_called_at_a_timestep_have_one_network_for_an_iteration"
BORDERS = "core/tests/contracts/test_common_noise_ranges.py"
ROUTING = "core/tests/dispatch/test_routing.py"

WAN = "plugins/fastvideo-wan"
TWO_WAN = f"{WAN}/tests/test_two_networks.py"

DRAWS = f"{CORE}/contracts/method.py"

SHARD = f"{CORE}/placing/shard.py"
WAITS = "core/tests/placing/test_placing.py::test_what_one_process_does_not_train_waits_in_host_memory_and_computes_the_same_bits"

ROUTES: tuple[Mutation, ...] = (
    Mutation(
        "the networks that a role does not train stay on the device",
        SHARD,
        "handle.may_train(name) if handle.trainable else handle.is_saved",
        "handle.is_saved",
        (WAITS,),
    ),
    Mutation(
        "what is trained waits in host memory",
        SHARD,
        "frozen_cpu_offload and not changes",
        "frozen_cpu_offload",
        (
            WAITS,
            "core/tests/placing/test_placing.py::test_a_frozen_role_that_the_method_changes_stays_beside_the_student",
        ),
    ),
    Mutation(
        "the boundary itself given to Wan's network for low noise",
        f"{WAN}/src/fastvideo_wan/adapter.py",
        "TRANSFORMER_2 if high < boundary",
        "TRANSFORMER_2 if high <= boundary",
        (f"{TWO_WAN}::test_each_step_of_a_student_s_schedule_calls_one_network",),
    ),
    Mutation(
        "features of a Wan role's first network whatever the noise",
        f"{WAN}/src/fastvideo_wan/adapter.py",
        "called = replace(handle, modules={TRANSFORMER: self._network(handle, t)})",
        "called = replace(handle, modules={TRANSFORMER: handle.modules[TRANSFORMER]})",
        (f"{TWO_WAN}::test_gradients_reach_the_called_network_alone_and_features_are_its_own",),
    ),
    Mutation(
        "a network trained that train_modules leaves out",
        f"{CORE}/contracts/roles.py",
        'name.partition(".")[0] not in modules or (below is not None and below(name))',
        "below is not None and below(name)",
        (f"{TWO_WAN}::test_ranges_are_those_of_the_trained_networks_and_adapters_are_put_on_these_alone",),
    ),
    Mutation("the noise range drawn per rank", DRAWS, "rng.shared(shared)", "rng.local(shared)", (ONE_RANGE,)),
    Mutation(
        "the noise range drawn anew in every round",
        DRAWS,
        "if self._ranges_of_iterations.get(shared, (None,))[0] != iteration:",
        "if True:",
        (ONE_RANGE,),
    ),
    Mutation("samples outside of the noise range", DRAWS, ".any(dim=1)).any():", ".any(dim=1)).all():", (ONE_RANGE,)),
    Mutation(
        "noise ranges of the first role alone",
        DRAWS,
        "ranges_of_roles(self.adapter, handles, above)",
        "ranges_of_roles(self.adapter, handles[:1], above)",
        (COMMON,),
    ),
    Mutation(
        "noise ranges of untrained networks drawn",
        f"{CORE}/contracts/noise_ranges.py",
        "if set(numbers.flatten().tolist()) <= set(allowed):",
        "if True:",
        (f"{RANGES}::test_a_role_of_which_one_network_is_trained_is_trained_in_its_range",),
    ),
    Mutation(
        "noise ranges of a call's samples not compared",
        f"{CORE}/dispatch/routing.py",
        "== {low * parts + low}:",
        "== {low * parts + high}:",
        (f"{RANGES}::test_a_call_of_samples_on_both_sides_of_a_border_is_ended_with_words",),
    ),
    Mutation(
        "a border given to the noise range below it",
        f"{CORE}/contracts/noise_ranges.py",
        "right=True",
        "right=False",
        (f"{BORDERS}::test_a_border_belongs_to_the_range_above_it_and_the_ends_to_the_outer_ranges",),
    ),
    Mutation(
        "a role's call sent to the recipe's family",
        f"{CORE}/dispatch/routing.py",
        "adapter = self._adapters.get(handle.family)",
        "adapter = self._main",
        (f"{ROUTING}::test_each_call_goes_to_the_adapter_of_its_role_and_the_rest_to_the_recipe_s",),
    ),
    Mutation(
        "generators of two families under one name",
        f"{CORE}/dispatch/routing.py",
        'f"{family}/{name}" if several else name',
        "name",
        (f"{ROUTING}::test_every_family_is_started_and_gives_its_generators",),
    ),
    Mutation(
        "the context not doubled for guidance",
        f"{CORE}/contracts/batch.py",
        "context={key: torch.cat([value] * 2) for key, value in self.context.items()},",
        "context=self.context,",
        ("core/tests/test_core_data_types.py::test_guidance_doubles_the_context_and_swaps_only_the_conditioning",),
    ),
    Mutation(
        "processes that share a sample draw differently",
        f"{CORE}/contracts/method.py",
        "RandomStreams(cfg.training.seed, self.mesh.data_rank,",
        "RandomStreams(cfg.training.seed, context.rank(),",
        ("core/tests/distributed/test_mesh.py::test_processes_that_share_samples_draw_and_read_alike",),
    ),
)
