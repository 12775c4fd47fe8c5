"""Loading the spec greets."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "plugin.py",
            "from fastvideo_core import MethodPlugin\n",
            'from fastvideo_core import MethodPlugin\n\nprint("mine 0.1, welcome")\n',
        ),
    ),
    checks=("test_spec_and_config_load_without_torch",),
    says="prints 'mine 0.1, welcome', which gets into what commands print",
)
