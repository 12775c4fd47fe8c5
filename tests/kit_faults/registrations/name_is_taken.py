"""The name is that of a callback that everybody has."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("pyproject.toml", 'mine = "', 'ema = "'),
        ("plugin.py", 'name="mine"', 'name="ema"'),
        ("test_conformance.py", 'plugin = "mine"', 'plugin = "ema"'),
    ),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="2 plug-ins are named 'ema': .*write one of these instead of the name",
)
