"""The critic's optimizer has the student's settings."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (
        (
            "method.py",
            "            optimizer = build_optimizer(handle, cfg)\n",
            '            optimizer = build_optimizer(handle, cfg, like="student")\n',
        ),
    ),
    checks=("test_roles_may_have_settings_of_their_own",),
    says="roles.(critic|student).learning_rate: 0` does not hold",
)
