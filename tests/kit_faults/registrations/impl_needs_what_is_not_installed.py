"""The class imports a package that is not there."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "from typing import Any\n", "from typing import Any\n\nimport surely_absent\n"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says=("the plug-in is installed, but 'surely_absent', which it imports, is not.*pip install surely_absent"),
)
