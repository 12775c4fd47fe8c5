"""The package asks for a core of long ago."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("pyproject.toml", '    "torch>=2.6",\n', '    "torch<2",\n'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="shows it as incomplete: .* needs torch<2, found .* or mend `dependencies`",
)
