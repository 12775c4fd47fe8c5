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
