"""The teacher's score becomes 0 where it is not finite."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (
        (
            "losses.py",
            "x.to(wide), x0_real.to(wide), x0_fake.to(wide)",
            "x.to(wide), torch.nan_to_num(x0_real.to(wide)), x0_fake.to(wide)",
        ),
    ),
    checks=("test_what_is_not_finite_stops_the_run",),
    says="that gives NaN.*leave out nan_to_num",
)
