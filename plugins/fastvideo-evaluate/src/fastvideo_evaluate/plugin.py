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
FRAME_WASSERSTEIN = MetricPlugin(
    name="frame_wasserstein",
    api=(1, 0),
    help="sliced Wasserstein distance of decoded frames to the teacher's",
    impl="fastvideo_evaluate.metrics.compared:FrameWasserstein",
)
FRAME_ENERGY = MetricPlugin(
    name="frame_energy",
    api=(1, 0),
    help="energy distance of decoded frames to the teacher's",
    impl="fastvideo_evaluate.metrics.compared:FrameEnergy",
)
LATENT_WASSERSTEIN = MetricPlugin(
    name="latent_wasserstein",
    api=(1, 0),
    help="sliced Wasserstein distance of latents to the teacher's",
    impl="fastvideo_evaluate.metrics.compared:LatentWasserstein",
)
LATENT_ENERGY = MetricPlugin(
    name="latent_energy",
    api=(1, 0),
    help="energy distance of latents to the teacher's",
    impl="fastvideo_evaluate.metrics.compared:LatentEnergy",
)
PAIRED_FRAMES = MetricPlugin(
    name="paired_frames",
    api=(1, 0),
    help="difference from the teacher's video of the same prompt and seed",
    impl="fastvideo_evaluate.metrics.compared:PairedFrames",
)
PAIRED_LATENTS = MetricPlugin(
    name="paired_latents",
    api=(1, 0),
    help="difference from the teacher's latents of the same prompt and seed",
    impl="fastvideo_evaluate.metrics.compared:PairedLatents",
)
OPTICAL_FLOW = MetricPlugin(
    name="optical_flow",
    api=(1, 0),
    help="length of the optical flow (OpenCV; needs the extra `flow`)",
    impl="fastvideo_evaluate.metrics.flow:OpticalFlow",
)
