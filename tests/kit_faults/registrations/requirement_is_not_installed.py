"""The package asks for what is not installed."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("pyproject.toml", '    "torch>=2.6",\n', '    "torch>=2.6",\n    "surely-absent>=3",\n'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says=(
        "shows it as incomplete: .* needs surely-absent>=3, found nothing. Install it: pip install "
        "'surely-absent>=3'; or mend `dependencies`"
    ),
)
