"""Mistakes of metrics: which value is the better one, what a video's numbers are, how sets are compared."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

EVALUATE = "plugins/fastvideo-evaluate/src/fastvideo_evaluate"
TESTS = "plugins/fastvideo-evaluate/tests"
FRAMES = f"{TESTS}/measures/test_frames.py"
POINTS = f"{TESTS}/measures/test_points.py"
FIND = f"{TESTS}/metrics/test_find.py"
COLLAPSE = f"{TESTS}/metrics/test_collapse.py"

BETTER = f"{FIND}::test_penalties_sort_the_better_value_first"
MOTION = f"{FRAMES}::test_motion_grows_with_the_speed_of_an_edge"
LIGHT = f"{FRAMES}::test_light_that_changes_is_no_motion_and_only_unsteady_light_flickers"
COLOURS = f"{FRAMES}::test_light_and_colour_of_known_colours"
ENERGY = f"{COLLAPSE}::test_the_energy_of_gaussian_latents_is_the_closed_form"
PAIRS = f"{COLLAPSE}::test_pairs_are_as_far_apart_as_they_were_shifted"
FIELDS = f"{POINTS}::test_fields_are_means_in_their_places_and_frames_are_spread"
SKETCH = f"{POINTS}::test_small_latents_are_their_own_point_and_large_ones_keep_distances"
SEEDS = f"{POINTS}::test_the_energy_of_two_seeds_is_without_bias"
ALIKE = f"{POINTS}::test_the_energy_of_seeds_is_the_closed_form_and_has_no_noise_in_common"


def in_frames(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{EVALUATE}/measures/frames.py", old, new, tests)


def in_points(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{EVALUATE}/measures/points.py", old, new, tests)


def in_compared(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{EVALUATE}/metrics/compared.py", old, new, tests)


def in_contract(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{EVALUATE}/metrics/contract.py", old, new, tests)


METRICS: tuple[Mutation, ...] = (
    in_contract("higher values are the worse ones", "return -value", "return value", BETTER),
    in_contract("above the teacher is better than at it", "abs(value - teacher)", "teacher - value", BETTER),
    in_frames(
        "colour is the largest alone", "frames.max(axis=-1) - frames.min(axis=-1)", "frames.max(axis=-1)", COLOURS
    ),
    in_frames(
        "a change of light is motion",
        "y = y - light.astype(np.float32)",
        "y = y - y.mean()",
        LIGHT,
    ),
    in_frames("motion along columns", "np.diff(y, axis=0)", "np.diff(y, axis=2)", MOTION),
    in_frames("a steady change of light flickers", "(light[:-2] + light[2:]) / 2", "light[:-2]", LIGHT),
    in_points("fields are sums", "/ counts.reshape(shape)", "", FIELDS),
    in_points("a sketch without signs", "rng.choice([-1.0, 1.0], len(flat))", "np.ones(len(flat))", SKETCH),
    in_points(
        "seeds with noise in common", "~np.eye(len(a), dtype=bool)", "np.ones((len(a), len(a)), dtype=bool)", SEEDS
    ),
    in_points(
        "the spread of a prompt's videos does not count", "2 * between - of_a - of_b", "2 * between - 2 * of_b", ALIKE
    ),
    in_compared("energy not per value", "/ math.sqrt(points.shape[1])", "", ENERGY),
    in_compared(
        "frames apart in whole steps", "video.frames, teacher.frames) / 255", "video.frames, teacher.frames)", PAIRS
    ),
    Mutation(
        "the projections are not of unit length",
        "plugins/fastvideo-tools/src/fastvideo_tools/distances.py",
        "    directions /= np.linalg.norm(directions, axis=0)\n",
        "",
        ("plugins/fastvideo-tools/tests/test_distances.py::test_sliced_wasserstein_of_gaussians_is_the_closed_form",),
    ),
)
