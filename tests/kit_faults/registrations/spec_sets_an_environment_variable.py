"""Loading the spec sets an environment variable."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "plugin.py",
            "from fastvideo_core import MethodPlugin\n",
            'from fastvideo_core import MethodPlugin\nimport os\n\nos.environ["MINE_DEBUG"] = "1"\n',
        ),
    ),
    checks=("test_spec_and_config_load_without_torch",),
    says="changes the environment variable MINE_DEBUG of the whole process",
)
