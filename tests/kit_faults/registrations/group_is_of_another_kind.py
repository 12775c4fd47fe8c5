"""The entry point is in the group of another kind."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("pyproject.toml", '"fastvideo.callbacks"', '"fastvideo.methods"'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="no callback 'mine' is installed .*'mine' is a method, not a callback",
)
