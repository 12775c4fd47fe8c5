"""Mistakes in a phase of Phased DMD: where it ends, what is compared there, what its critic regresses."""

from __future__ import annotations

from tests.mutations.mutation import DMD2, Mutation

PHASED = "plugins/fastvideo-dmd2/tests/test_phased.py"
LEVELS = "plugins/fastvideo-dmd2/tests/test_levels.py"
METHOD = f"{DMD2}/method.py"
REGRESSION = f"{LEVELS}::test_the_target_from_a_level_regresses_to_the_velocity_and_the_naive_one_does_not"
MEANS = f"{LEVELS}::test_the_mean_of_the_target_is_the_velocity_at_each_point"
CRITIC = f"{PHASED}::test_the_critic_regresses_what_networks_of_the_family_do_at_the_level_s_own_noise"
STUDENT = f"{PHASED}::test_the_student_follows_the_difference_of_the_scores_at_its_sample_at_the_level"
END = f"{PHASED}::test_a_phase_ends_where_the_next_network_takes_the_sample"
MOVED = f"{PHASED}::test_the_student_s_output_is_moved_to_the_level_as_sampling_goes_there"
SCORES = f"{PHASED}::test_scores_are_compared_above_the_level_alone_as_often_as_the_whole_distribution_is_there"

PHASES: tuple[Mutation, ...] = (
    Mutation(
        "the naive target from a level",
        f"{DMD2}/levels.py",
        "return (x_s - in_clean * e) / (1 - level), in_noise * e, ",
        "return x_s, e, ",
        (REGRESSION, MEANS, CRITIC),
    ),
    Mutation(
        "noised from a level as from clean data",
        f"{DMD2}/levels.py",
        "a = (1 - t) / (1 - level)",
        "a = 1 - t",
        (REGRESSION, CRITIC, STUDENT),
    ),
    Mutation(
        "the level's own noise not taken off",
        f"{DMD2}/levels.py",
        "(t**2 - (a * level) ** 2)",
        "(t**2)",
        (REGRESSION, CRITIC, STUDENT),
    ),
    Mutation(
        "the critic's target of the sample itself", METHOD, "target(clean, noise, t)", "target(x, noise, t)", (CRITIC,)
    ),
    Mutation(
        "the velocity in place of what the family's networks regress",
        METHOD,
        "self.adapter.prediction_target(clean, noise, t)",
        "noise - clean",
        (CRITIC,),
    ),
    Mutation(
        "the target's variance not divided out", METHOD, "batch.loss_weight, weight)", "batch.loss_weight)", (CRITIC,)
    ),
    Mutation(
        "the student's scores noised from clean data",
        METHOD,
        'noisy, *_ = self.noised_sample(x, self.noise_like(x, "student_score_noise"), t)',
        'noisy = self.adapter.add_noise(x, self.noise_like(x, "student_score_noise"), t)',
        (STUDENT,),
    ),
    Mutation("scores below the level", METHOD, "above=self.level * total", "above=0.0", (SCORES,)),
    Mutation("a phase that ends at its own last call", METHOD, "indices[-1] + 1)", "indices[-1])", (END,)),
    Mutation(
        "the clean estimate in place of the sample at the level",
        METHOD,
        "return transition(noisy, x0, sigma, self.level, kind=self.sampler_kind, generator=stream)",
        "return x0",
        (MOVED,),
    ),
)
