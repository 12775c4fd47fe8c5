"""The callbacks that core itself brings, as entry points name them; imports no torch."""

from __future__ import annotations

from fastvideo_core.registry.specs import CallbackPlugin

EMA = CallbackPlugin(
    name="ema",
    api=(1, 0),
    impl="fastvideo_core.callbacks.ema:EMACallback",
    config="fastvideo_core.callbacks.config:EMAConfig",
)

GRAD_NORM = CallbackPlugin(
    name="grad_norm",
    api=(1, 0),
    impl="fastvideo_core.callbacks.grad_norm:GradNormCallback",
    config="fastvideo_core.callbacks.config:GradNormConfig",
)

THROUGHPUT = CallbackPlugin(
    name="throughput",
    api=(1, 0),
    impl="fastvideo_core.callbacks.throughput:ThroughputCallback",
    config="fastvideo_core.callbacks.config:ThroughputConfig",
)

PROFILER = CallbackPlugin(
    name="profiler",
    api=(1, 0),
    impl="fastvideo_core.callbacks.profiler:ProfilerCallback",
    config="fastvideo_core.callbacks.config:ProfilerConfig",
)

EARLY_STOP = CallbackPlugin(
    name="early_stop",
    api=(1, 0),
    impl="fastvideo_core.callbacks.early_stop:EarlyStopCallback",
    config="fastvideo_core.callbacks.config:EarlyStopConfig",
)
