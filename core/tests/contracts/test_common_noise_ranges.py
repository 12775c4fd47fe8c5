"""The noise ranges that several roles have in common, and their borders."""

import torch

from fastvideo_core.contracts.noise_ranges import common_ranges, range_of

WHOLE = ((0.0, 1000.0),)
TWO = ((0.0, 875.0), (875.0, 1000.0))


def test_a_border_belongs_to_the_range_above_it_and_the_ends_to_the_outer_ranges():
    cuts, _ = common_ranges([TWO], 1000.0)
    assert cuts == (875.0,)
    t = torch.tensor([0.0, 874.9999, 875.0, 1000.0])
    assert range_of(t, cuts).tolist() == [0, 0, 1, 1]
    assert range_of(t[:, None], cuts).shape == (4, 1)


def test_a_border_in_float32_is_the_number_that_it_was_rounded_to():
    third = float(torch.tensor(1000 / 3))
    assert range_of(torch.tensor([third]), (third,)).tolist() == [1]
    assert range_of(torch.tensor([third]).nextafter(torch.tensor(0.0)), (third,)).tolist() == [0]


def test_the_common_refinement_has_the_borders_of_all_roles():
    other = ((0.0, 500.0), (500.0, 1000.0))
    assert common_ranges([WHOLE, TWO, other], 1000.0) == ((500.0, 875.0), (0, 1, 2))
    assert common_ranges([WHOLE], 1000.0) == ((), (0,))


def test_a_role_of_which_one_network_is_trained_allows_its_range_alone():
    low, high = TWO[:1], TWO[1:]
    assert common_ranges([low], 1000.0) == ((875.0,), (0,))
    assert common_ranges([high, WHOLE], 1000.0) == ((875.0,), (1,))
    assert common_ranges([low, high], 1000.0) == ((875.0,), ())
