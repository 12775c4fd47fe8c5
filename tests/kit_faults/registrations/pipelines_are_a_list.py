"""The pipelines are a list."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "plugin.py",
            '    config="fastvideo_mine.config:MineConfig",\n',
            '    config="fastvideo_mine.config:MineConfig",\n    pipelines=["MinePipeline"],\n',
        ),
    ),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="pipelines is .'MinePipeline'., not a tuple of names",
)
