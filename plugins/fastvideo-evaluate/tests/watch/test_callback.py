"""The watch in whole trainings of the toy family."""

from __future__ import annotations

from fastvideo_testing import CallbackPluginSuite


class TestQualityWatch(CallbackPluginSuite):
    plugin = "quality_watch"
    config = {"every": 2, "reference_steps": 4}
    steps = 16
