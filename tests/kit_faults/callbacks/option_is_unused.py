"""An option is never read."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "config.every", "1"),),
    checks=("test_every_option_does_something",),
    says="nothing reads the option every of the callback 'mine': .* use it, or remove it",
)
