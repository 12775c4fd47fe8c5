"""The noise ranges that several roles have in common, and their borders."""

from typing import Any

import torch

from fastvideo_core.contracts.noise_ranges import range_of, ranges_of_roles
from fastvideo_core.contracts.roles import RoleHandle

WHOLE = ((0.0, 1000.0),)
TWO = ((0.0, 875.0), (875.0, 1000.0))


class Adapter:
    num_train_timesteps = 1000

    def __init__(self, ranges: dict[str, Any]) -> None:
        self.ranges = ranges

    def noise_ranges(self, handle: RoleHandle) -> Any:
        return self.ranges[handle.name]


def common(*ranges: Any) -> Any:
    """Cuts and numbers for roles of these ranges."""
    by_role = {str(number): one for number, one in enumerate(ranges)}
    return ranges_of_roles(Adapter(by_role), [RoleHandle(name, {}) for name in by_role])


def test_a_border_belongs_to_the_range_above_it_and_the_ends_to_the_outer_ranges():
    cuts, _ = common(TWO)
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
    assert common(WHOLE, TWO, other) == ((500.0, 875.0), (0, 1, 2))
    assert common(WHOLE) == ((), (0,))


def test_a_role_of_which_one_network_is_trained_allows_its_range_alone():
    low, high = TWO[:1], TWO[1:]
    assert common(low) == ((875.0,), (0,))
    assert common(high, WHOLE) == ((875.0,), (1,))
    assert common(low, high) == ((875.0,), ())
