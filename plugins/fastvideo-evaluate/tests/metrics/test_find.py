"""Metrics are found as all plug-ins are, and what cannot be made is told of before anything is measured."""

from __future__ import annotations

import numpy as np
import pytest

from fastvideo_core.errors import PluginError, Problem
from fastvideo_core.registry import PluginRegistry
from fastvideo_evaluate import Metric, Sample, VideoMetric, load_metrics, penalty, register_metric
from fastvideo_testing.isolation import isolated_registrations


def test_metrics_are_made_in_the_order_of_their_names_each_once():
    found = load_metrics(["motion", "fastvideo-evaluate:brightness", "motion"], PluginRegistry())
    assert list(found) == ["motion", "fastvideo-evaluate:brightness"]
    frames = np.full((3, 8, 8, 3), 255, dtype=np.uint8)
    assert found["fastvideo-evaluate:brightness"].measure(Sample("a cat", 0, frames, fps=16)) == pytest.approx(1)


def test_every_metric_of_the_package_is_healthy_and_says_what_is_better():
    registry = PluginRegistry()
    ours = [one for one in registry.list("metrics") if one.provenance.distribution == "fastvideo-evaluate"]
    assert ours
    for status in ours:
        assert status.healthy
        cls = registry.class_of(status.plugin, "impl", Metric)
        assert cls.unit
        assert penalty(cls.better, 1.0, 1.0) <= penalty(cls.better, 3.0, 1.0) or cls.better == "higher"


def test_everything_that_cannot_be_made_is_told_of_at_once():
    with isolated_registrations():

        @register_metric("of-a-model", help="asks a model")
        class OfAModel(VideoMetric):
            __module__ = "my_metrics"  # this file's own is none that can be written

            def __init__(self, **options):
                raise PluginError(Problem("of-a-model lacks its weights", fix="give its folder"))

            def measure(self, video):
                return 0.0

        with pytest.raises(PluginError) as caught:
            load_metrics(["of-a-model", "brigthness", "wan"], PluginRegistry(), weights={"fvd": "/models/i3d"})
    said = str(caught.value)
    assert "of-a-model lacks its weights" in said
    assert "no metric 'brigthness' is installed" in said
    assert "did you mean 'brightness'?" in said
    assert "weights are given for 'fvd', which is not measured" in said


def test_what_is_no_metric_is_refused_with_its_base():
    with isolated_registrations():
        register_metric("no-metric", help="nothing")(dict)
        with pytest.raises(PluginError, match=r"a subclass of fastvideo_evaluate\.Metric"):
            load_metrics(["no-metric"], PluginRegistry())


def test_penalties_sort_the_better_value_first():
    values = [0.1, 0.5, 0.9]
    assert min(values, key=lambda v: penalty("higher", v, 0.5)) == 0.9
    assert min(values, key=lambda v: penalty("lower", v, 0.5)) == 0.1
    assert min(values, key=lambda v: penalty("closest to the teacher", v, 0.6)) == 0.5
