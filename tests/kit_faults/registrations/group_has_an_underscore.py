"""The entry-point group is written with an underscore."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("pyproject.toml", '"fastvideo.callbacks"', '"fastvideo_callbacks"'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says=(
        "is in the entry-point group 'fastvideo_callbacks', which nothing reads.*write "
        '.project.entry-points."fastvideo.callbacks".'
    ),
)
