"""A role whose folder has no weights ends in a traceback."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "folder.py",
            "    if not file.is_file():",
            "    if False:",
        ),
    ),
    checks=("test_a_path_without_a_model_is_the_user_s_error",),
    says="raise ConfigError with the role and what is missing",
)
