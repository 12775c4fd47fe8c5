"""`tiny` writes a network of another size than `build` expects."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "folder.py",
            "        network = Network()\n    write_folder(out",
            "        network = Network(width=4)\n    write_folder(out",
        ),
    ),
    checks=("test_the_tiny_pipeline_is_built_and_called",),
    says="what `tiny` writes cannot be built",
)
