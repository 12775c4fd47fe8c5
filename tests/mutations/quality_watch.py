"""Mistakes in the watch over a student's samples."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

WATCH = "plugins/fastvideo-evaluate/src/fastvideo_evaluate/watch"
STATISTICS = "plugins/fastvideo-evaluate/tests/watch/test_statistics.py"
CALLBACK = "plugins/fastvideo-evaluate/tests/watch/test_callback.py"
PLANTED = f"{STATISTICS}::test_drift_has_the_size_and_direction_of_a_planted_fault"
FORMULAS = f"{STATISTICS}::test_statistics_are_those_of_plain_formulas"

QUALITY_WATCH: tuple[Mutation, ...] = (
    Mutation(
        "drift turned round", f"{WATCH}/statistics.py", "max(now / then, _LEAST)", "max(then / now, _LEAST)", (PLANTED,)
    ),
    Mutation(
        "motion along height", f"{WATCH}/statistics.py", "x.diff(dim=2).square()", "x.diff(dim=3).square()", (FORMULAS,)
    ),
    Mutation(
        "variation between prompts for that between seeds",
        f"{WATCH}/statistics.py",
        "coarse.var(1, correction=1)",
        "coarse.var(0, correction=1)",
        (FORMULAS,),
    ),
    Mutation(
        "a warning of whoever is far off from the start",
        f"{WATCH}/callback.py",
        "is_off(drifted, self._best, self._config.threshold)",
        "is_off(drifted, 0.0, self._config.threshold)",
        (f"{CALLBACK}::test_a_good_run_is_not_warned_of_and_one_that_is_too_fast_is",),
    ),
    Mutation(
        "the farthest checkpoint kept",
        f"{WATCH}/callback.py",
        "drifted < best.kept_drift(path.parent):",
        "(drifted > best.kept_drift(path.parent) or best.kept_drift(path.parent) > 1e9):",
        (f"{CALLBACK}::test_the_nearest_checkpoint_is_kept_whatever_rotates",),
    ),
    Mutation(
        "the noise of a look drawn from the generator of all",
        f"{WATCH}/samples.py",
        "torch.randn(batch.latents.shape, generator=generator, device=generator.device)",
        "torch.randn(batch.latents.shape)",
        (f"{CALLBACK}::TestQualityWatch::test_it_leaves_the_global_generators_alone",),
    ),
    Mutation(
        "warnings forgotten at resume",
        f"{WATCH}/callback.py",
        'state["best"], state["looks"], state["warnings"]',
        'state["best"], state["looks"], 0',
        (f"{CALLBACK}::test_a_warning_lowers_the_rate_and_a_resumed_run_goes_on_with_it",),
    ),
)
"""All of them."""
