"""An exported folder has other names than a folder of the family."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "family.py",
            'write_folder(out, modules["transformer"])',
            ('write_folder(out, {f"transformer.{key}": value for key, value in modules["transformer"].items()})'),
        ),
    ),
    checks=("test_an_exported_role_is_the_same_network",),
    says="what `export` wrote cannot be opened as a role",
)
