"""The entry point of method `averaged`."""

from __future__ import annotations

from fastvideo_core import MethodPlugin

PLUGIN = MethodPlugin(
    name="averaged",
    api=(1, 0),
    impl="fastvideo_averaged.method:AveragedMethod",
    config="fastvideo_averaged.config:AveragedConfig",
    roles=("student", "teacher"),
)
