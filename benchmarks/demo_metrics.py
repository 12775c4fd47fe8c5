"""The demo's own measures as metrics of `evaluate`: right captions, and distances of its clips by what the demo looks at.

    fastvideo-distill evaluate demo/runs/student-4 demo/runs/student-1 --prompts demo/prompts.json --output evaluation \\
        --against-clips demo/held-out --plugin benchmarks/demo_metrics.py --metrics demo_captions,demo_energy,demo_wasserstein
"""

from __future__ import annotations

import math

from fastvideo_evaluate import PromptSetMetric, Sample, SetMetric, VideoMetric, register_metric
from fastvideo_evaluate.metrics.contract import Floats
from fastvideo_tools.demo.clips import CONTENTS
from fastvideo_tools.demo.measures import accuracy, features
from fastvideo_tools.distances import energy_distance, sliced_wasserstein


@register_metric("demo_captions", help="share of the demo's videos that show what they were asked for")
class DemoCaptions(VideoMetric):
    """1 where the pixels show all of the caption, else 0."""

    unit, better = "0 or 1", "higher"

    def measure(self, video: Sample) -> float:
        asked = next(content for content in CONTENTS if content.caption == video.prompt)
        return accuracy([video.frames], [asked]).caption


@register_metric(
    "demo_energy", help="the demo's energy distance of each caption: of what moves, more than of its background"
)
class DemoEnergy(PromptSetMetric):
    """In root mean squares over the values of a clip's point."""

    unit, better = "", "lower"

    def features(self, video: Sample) -> Floats:
        return features([video.frames])[0]

    def distance(self, points: Floats, teacher: Floats) -> float:
        return energy_distance(points, teacher) / math.sqrt(points.shape[1])


@register_metric("demo_wasserstein", help="the demo's sliced Wasserstein distance of all clips")
class DemoWasserstein(SetMetric):
    """Of the same points as `demo_energy`."""

    unit, better = "", "lower"

    def features(self, video: Sample) -> Floats:
        return features([video.frames])[0]

    def distance(self, points: Floats, teacher: Floats) -> float:
        return sliced_wasserstein(points, teacher)
