"""An option is checked against the run, and does nothing."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "config.every", "1"),
        (
            "config.py",
            'description="Log the count every so many steps.")\n',
            (
                'description="Log the count every so many steps.")\n'
                "\n"
                "    def check_run(self, cfg):\n"
                "        return [] if self.every <= cfg.training.max_train_steps else []\n"
            ),
        ),
    ),
    checks=("test_every_option_does_something",),
    says="nothing reads the option every of the callback 'mine'",
)
