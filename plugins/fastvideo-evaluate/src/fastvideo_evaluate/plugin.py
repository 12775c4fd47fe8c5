"""The package's metrics, its command and its callback."""

from fastvideo_core.registry.specs import CallbackPlugin, CommandPlugin, MetricPlugin

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
FRAME_PROMPT_ENERGY = MetricPlugin(
    name="frame_prompt_energy",
    api=(1, 0),
    help="energy distance of decoded frames to the teacher's of the same prompt",
    impl="fastvideo_evaluate.metrics.compared:FramePromptEnergy",
)
LATENT_PROMPT_ENERGY = MetricPlugin(
    name="latent_prompt_energy",
    api=(1, 0),
    help="energy distance of latents to the teacher's of the same prompt",
    impl="fastvideo_evaluate.metrics.compared:LatentPromptEnergy",
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
CLIP_SIMILARITY = MetricPlugin(
    name="clip_similarity",
    api=(1, 0),
    help="whether videos show their prompts (CLIP; needs --metric-weights)",
    impl="fastvideo_evaluate.metrics.clip:ClipSimilarity",
)
FVD = MetricPlugin(
    name="fvd",
    api=(1, 0),
    help="Frechet video distance to the teacher's (cd-fvd; needs --metric-weights)",
    impl="fastvideo_evaluate.metrics.fvd:FrechetVideoDistance",
)
VBENCH_BACKGROUND_CONSISTENCY = MetricPlugin(
    name="vbench_background_consistency",
    api=(1, 0),
    help="VBench's background_consistency (needs --metric-weights)",
    impl="fastvideo_evaluate.metrics.vbench:BackgroundConsistency",
)
VBENCH_TEMPORAL_FLICKERING = MetricPlugin(
    name="vbench_temporal_flickering",
    api=(1, 0),
    help="VBench's temporal_flickering (needs --metric-weights)",
    impl="fastvideo_evaluate.metrics.vbench:TemporalFlickering",
)
VBENCH_MOTION_SMOOTHNESS = MetricPlugin(
    name="vbench_motion_smoothness",
    api=(1, 0),
    help="VBench's motion_smoothness (needs --metric-weights)",
    impl="fastvideo_evaluate.metrics.vbench:MotionSmoothness",
)
VBENCH_DYNAMIC_DEGREE = MetricPlugin(
    name="vbench_dynamic_degree",
    api=(1, 0),
    help="VBench's dynamic_degree (needs --metric-weights)",
    impl="fastvideo_evaluate.metrics.vbench:DynamicDegree",
)
VBENCH_AESTHETIC_QUALITY = MetricPlugin(
    name="vbench_aesthetic_quality",
    api=(1, 0),
    help="VBench's aesthetic_quality (needs --metric-weights)",
    impl="fastvideo_evaluate.metrics.vbench:AestheticQuality",
)
VBENCH_IMAGING_QUALITY = MetricPlugin(
    name="vbench_imaging_quality",
    api=(1, 0),
    help="VBench's imaging_quality (needs --metric-weights)",
    impl="fastvideo_evaluate.metrics.vbench:ImagingQuality",
)
QUALITY_WATCH = CallbackPlugin(
    name="quality_watch",
    api=(1, 0),
    impl="fastvideo_evaluate.watch.callback:QualityWatch",
    config="fastvideo_evaluate.watch.config:QualityWatchConfig",
)
EVALUATE = CommandPlugin(
    name="evaluate",
    api=(1, 0),
    help="does the student work? the same prompts through teacher and checkpoints, measured, on one page",
    impl="fastvideo_evaluate.command.evaluate:COMMAND",
)
