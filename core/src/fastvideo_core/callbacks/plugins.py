"""The callbacks that core itself brings, as entry points name them; imports no torch."""

from __future__ import annotations

from fastvideo_core.registry.specs import CallbackPlugin


def _spec(name: str, callback: str) -> CallbackPlugin:
    impl, config = (
        f"fastvideo_core.callbacks.{name}:{callback}Callback",
        f"fastvideo_core.callbacks.config:{callback}Config",
    )
    return CallbackPlugin(name=name, api=(1, 0), impl=impl, config=config)


EMA = _spec("ema", "EMA")
GRAD_NORM = _spec("grad_norm", "GradNorm")
THROUGHPUT = _spec("throughput", "Throughput")
PROFILER = _spec("profiler", "Profiler")
EARLY_STOP = _spec("early_stop", "EarlyStop")
