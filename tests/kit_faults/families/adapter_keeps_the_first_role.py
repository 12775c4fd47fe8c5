"""The adapter keeps the network of the first role that it sees."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            '        out: Tensor = handle.modules["transformer"](',
            (
                '        self._network = getattr(self, "_network", '
                'handle.modules["transformer"])\n'
                "        out: Tensor = self._network("
            ),
        ),
    ),
    checks=("test_the_handle_says_which_network_runs",),
    says="the adapter runs another network than the handle's",
)
