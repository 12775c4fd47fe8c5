"""Each process decides for itself whether guidance is used."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            (
                "            target = self.adapter.predict_x0_guided(self.teacher, noisy, t, prepared, "
                "guidance_scale=scale)"
            ),
            (
                '            if torch.rand((), generator=self.rng.local("guided")) < 0.5:\n'
                "                target = self.adapter.predict_x0_guided(self.teacher, noisy, t, prepared, "
                "guidance_scale=scale)\n"
                "            else:\n"
                "                target = self.adapter.predict_x0(self.teacher, noisy, t, prepared, conditional=True)"
            ),
        ),
    ),
    checks=("test_all_processes_call_the_same_networks",),
    says=r"other networks in process \d.*self.rng.shared",
)
