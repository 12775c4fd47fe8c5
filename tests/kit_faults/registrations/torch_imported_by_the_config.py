"""The module of the options imports torch."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("config.py", "from pydantic import Field\n", "from pydantic import Field\nimport torch\n"),),
    checks=("test_spec_and_config_load_without_torch",),
    says="config:MineConfig imports torch, .* import it under `if TYPE_CHECKING:`",
)
