"""Samples whose target is not finite are left out in silence."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "loss = mean_per_sample((x0 - target) ** 2, prepared.loss_weight).mean()",
            (
                "target = torch.where(torch.isfinite(target), target, x0.detach())\n"
                "        loss = mean_per_sample((x0 - target) ** 2, prepared.loss_weight).mean()"
            ),
        ),
    ),
    checks=("test_what_is_not_finite_stops_the_run",),
    says="network of teacher that gives NaN.*leave out nan_to_num, isfinite",
)
