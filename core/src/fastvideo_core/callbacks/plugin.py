"""The callback that core itself brings, as its entry point names it; imports neither torch nor pydantic."""

from fastvideo_core.registry.specs import CallbackPlugin

EMA = CallbackPlugin(
    name="ema",
    api=(1, 0),
    impl="fastvideo_core.callbacks.ema:EMACallback",
    config="fastvideo_core.callbacks.config:EMAConfig",
)
