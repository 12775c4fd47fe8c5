"""The package's metrics."""

from fastvideo_core.registry.specs import MetricPlugin

BRIGHTNESS = MetricPlugin(
    name="brightness",
    api=(1, 0),
    help="mean luma of each video",
    impl="fastvideo_evaluate.metrics.built_in:Brightness",
)
CONTRAST = MetricPlugin(
    name="contrast",
    api=(1, 0),
    help="spread of luma within frames",
    impl="fastvideo_evaluate.metrics.built_in:Contrast",
)
SATURATION = MetricPlugin(
    name="saturation",
    api=(1, 0),
    help="how colourful pixels are",
    impl="fastvideo_evaluate.metrics.built_in:Saturation",
)
SHARPNESS = MetricPlugin(
    name="sharpness",
    api=(1, 0),
    help="detail within frames (Laplacian of luma)",
    impl="fastvideo_evaluate.metrics.built_in:Sharpness",
)
MOTION = MetricPlugin(
    name="motion",
    api=(1, 0),
    help="change from frame to frame (frame differences, no optical flow)",
    impl="fastvideo_evaluate.metrics.built_in:Motion",
)
FLICKER = MetricPlugin(
    name="flicker",
    api=(1, 0),
    help="unsteadiness of the light",
    impl="fastvideo_evaluate.metrics.built_in:Flicker",
)
DIVERSITY = MetricPlugin(
    name="diversity",
    api=(1, 0),
    help="how far the seeds of a prompt are apart",
    impl="fastvideo_evaluate.metrics.built_in:Diversity",
)
