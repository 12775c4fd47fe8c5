"""Mistakes of `evaluate`: drifts, intervals over prompts, and which model is the best."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

RESULTS = "plugins/fastvideo-evaluate/src/fastvideo_evaluate/command/results.py"
TESTS = "plugins/fastvideo-evaluate/tests/command/test_results.py"

DRIFTS = f"{TESTS}::test_values_drifts_and_what_keeps_pairs"
SETS = f"{TESTS}::test_sets_have_no_noise_in_common"
INTERVAL = f"{TESTS}::test_an_interval_is_that_of_a_mean_over_prompts"
BEST = f"{TESTS}::test_the_nearest_to_the_teacher_is_the_best_and_a_collapse_comes_last"
PROMPTS = f"{TESTS}::test_what_compares_prompts_decides_and_places_do_not"
NUMBER = f"{TESTS}::test_a_model_without_a_number_is_never_the_best"


def in_results(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, RESULTS, old, new, tests)


EVALUATION = (
    in_results("the drift's sign", "(value.mean - teacher.mean,", "(teacher.mean - value.mean,", DRIFTS),
    in_results(
        "the drift's interval without the teacher's", "value.resampled - teacher.resampled", "value.resampled", DRIFTS
    ),
    in_results("intervals of the half width", "(1 - LEVEL) / 2, (1 + LEVEL) / 2", "0.25, 0.75", INTERVAL),
    in_results(
        "resamples are not moved to the value", "resampled += value - resampled.mean()", "resampled += 1", INTERVAL
    ),
    in_results("sets with noise in common", "for k in seeds if k != seed]", "for k in seeds]", SETS),
    in_results("a model without a number wins", "np.where(np.isnan(decides), np.inf, decides)", "decides", NUMBER),
    in_results("places decide", "if by is None else np.array", "if by is not None else np.array", PROMPTS),
    in_results(
        "a prompt beside another one", "zip(ours, theirs, strict=True)", "zip(ours, theirs[::-1], strict=True)", PROMPTS
    ),
    in_results("the farthest is the best", "(bad[None] < bad[:, None])", "(bad[None] > bad[:, None])", BEST),
    in_results(
        "the least often best is the best", "(first[1:] == number).mean()", "(first[1:] != number).mean()", BEST
    ),
)
