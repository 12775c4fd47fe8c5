"""An option is declared and never read."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "config.py",
            "    def check_run",
            (
                '    temperature: float = Field(default=1.0, gt=0, le=10, description="Of the loss")\n'
                "\n"
                "    def check_run"
            ),
        ),
    ),
    checks=("test_every_option_changes_something",),
    says="the option temperature does nothing.*refuse it where it has no meaning",
)
