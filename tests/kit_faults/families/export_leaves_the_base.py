"""`export` copies the base's weights in the place of the trained ones."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "family.py",
            'write_folder(out, modules["transformer"])',
            "write_folder(out, load_network(base_path).state_dict())",
        ),
    ),
    checks=("test_an_exported_role_is_the_same_network",),
    says="the output of the exported role, opened again.*writes the weights of `modules`",
)
