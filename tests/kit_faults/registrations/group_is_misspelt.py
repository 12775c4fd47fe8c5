"""The entry-point group is misspelt."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("pyproject.toml", '"fastvideo.methods"', '"fastvideo.method"'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says=(
        "is in the entry-point group 'fastvideo.method', which nothing reads.*write "
        '.project.entry-points."fastvideo.methods".'
    ),
)
