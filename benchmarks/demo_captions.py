"""The demo's own measure as a metric of `evaluate`: whether a video's pixels show the colour, shape and direction of its caption.

    fastvideo-distill evaluate demo/runs/student-4 demo/runs/student-1 --prompts demo/prompts.json --output evaluation \\
        --plugin benchmarks/demo_captions.py --metrics demo_captions,brightness,frame_energy
"""

from __future__ import annotations

from fastvideo_evaluate import Sample, VideoMetric, register_metric
from fastvideo_tools.demo.clips import CONTENTS
from fastvideo_tools.demo.measures import accuracy


@register_metric("demo_captions", help="share of the demo's videos that show what they were asked for")
class DemoCaptions(VideoMetric):
    """1 where the pixels show all of the caption, else 0."""

    unit, better = "0 or 1", "higher"

    def measure(self, video: Sample) -> float:
        asked = next(content for content in CONTENTS if content.caption == video.prompt)
        return accuracy([video.frames], [asked]).caption
