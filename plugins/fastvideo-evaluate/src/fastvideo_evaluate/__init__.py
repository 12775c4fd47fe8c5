"""Does the student work? Metrics of videos and latents, as plug-ins, measured against the teacher.

`metrics` has the contract of a metric (`contract`), finds metrics (`find`), and brings those of this package; `measures` are the
functions behind them. The names that authors of metrics use are imported lazily from here.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "Sample": "metrics.contract",
    "Metric": "metrics.contract",
    "VideoMetric": "metrics.contract",
    "PromptMetric": "metrics.contract",
    "PairMetric": "metrics.contract",
    "SetMetric": "metrics.contract",
    "PromptSetMetric": "metrics.contract",
    "penalty": "metrics.contract",
    "load_metrics": "metrics.find",
    "register_metric": "metrics.find",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fastvideo_evaluate' has no attribute '{name}'")
    return getattr(importlib.import_module(f"fastvideo_evaluate.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
