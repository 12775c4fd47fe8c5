"""The average is updated in each accumulation round, and where an update is skipped."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (
        (
            "method.py",
            "        weight = self.config.consistency",
            (
                "        with torch.no_grad():\n"
                "            for (_, a), (_, b) in zip(self.average.named_parameters(), "
                "self.student.named_parameters(), strict=True):\n"
                "                a.lerp_(b, 0.1)\n"
                "        weight = self.config.consistency"
            ),
        ),
    ),
    checks=("test_an_update_changes_the_due_roles_and_nothing_else",),
    says="of average before the update.*optimizers_schedulers_step",
)
