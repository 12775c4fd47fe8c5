"""The module of the spec imports torch."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "plugin.py",
            "from fastvideo_core import MethodPlugin\n",
            "from fastvideo_core import MethodPlugin\nimport torch\n",
        ),
    ),
    checks=("test_spec_and_config_load_without_torch",),
    says="loading fastvideo_mine.plugin:PLUGIN imports torch, .* import it under `if TYPE_CHECKING:`",
)
