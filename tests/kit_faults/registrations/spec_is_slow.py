"""Loading the spec computes a table."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "plugin.py",
            "from fastvideo_core import CallbackPlugin\n",
            (
                "from fastvideo_core import CallbackPlugin\n"
                "\n"
                "TABLE = [hash(str(number)) for number in range(12_000_000)]\n"
            ),
        ),
    ),
    checks=("test_spec_and_config_load_without_torch",),
    says=("loading fastvideo_mine.plugin:PLUGIN takes .* s of the processor.*work belongs where the plug-in is used"),
)
