"""What fastvideo-core finds through the entry point `deadline`; never imports torch."""

from __future__ import annotations

from fastvideo_core import CallbackPlugin

PLUGIN = CallbackPlugin(
    name="deadline",
    api=(1, 0),
    impl="fastvideo_deadline.callback:DeadlineCallback",
    config="fastvideo_deadline.config:DeadlineConfig",
)
