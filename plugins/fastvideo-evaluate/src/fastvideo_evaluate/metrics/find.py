"""Finds metrics by name among the plug-ins, and makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from fastvideo_core.errors import PluginError, Problem, UserError, did_you_mean
from fastvideo_core.registry.registration import registering
from fastvideo_core.registry.registry import PluginRegistry
from fastvideo_core.registry.specs import API_VERSION
from fastvideo_evaluate.metrics.contract import Metric

_Class = TypeVar("_Class", bound=type[Metric])


def register_metric(
    name: str, *, help: str, api: tuple[int, int] = API_VERSION, deprecated: str | None = None
) -> Callable[[_Class], _Class]:
    """Register the decorated Metric class in running code, as an entry point of `fastvideo.metrics` does; see MetricPlugin."""
    return registering("metrics", name, api, help=help, deprecated=deprecated)


def load_metrics(
    names: Iterable[str],
    registry: PluginRegistry | None = None,
    *,
    weights: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> dict[str, Metric]:
    """The metrics of these names, made, in this order; all that cannot be made are told of at once.

    Args:
        names: as `fastvideo-distill plugins` lists them, or `distribution:name`; twice is once.
        registry: of what is installed, where None.
        weights: by name of a metric, its model's folder.
        device: where metrics that ask a model run it.

    Raises:
        PluginError: a metric is unknown, broken, or lacks a package or weights; `weights` names none of these.
    """
    wanted, weights, registry = list(dict.fromkeys(names)), weights or {}, registry or PluginRegistry()
    problems = [
        Problem(f"weights are given for {name!r}, which is not measured", fix=did_you_mean(name, wanted))
        for name in weights
        if name not in wanted
    ]
    made: dict[str, Metric] = {}
    for name in wanted:
        try:
            cls = registry.class_of(registry.get("metrics", name), "impl", Metric)
            made[name] = cls(weights=weights.get(name, ""), device=device)
        except UserError as error:
            problems += error.problems
    if problems:
        raise PluginError(problems)
    return made
