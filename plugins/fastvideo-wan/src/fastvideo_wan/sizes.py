"""The sizes of the videos that Wan 2.1 makes."""

from __future__ import annotations

from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_wan.config import FRAMES_DIVISOR, SIZE_MULTIPLE

FPS = 16.0
GEOMETRY = VideoGeometry(frames_divisor=FRAMES_DIVISOR, frames_remainder=1, size_multiple=SIZE_MULTIPLE, fps=FPS)
SIZE = VideoSize(height=480, width=832, num_frames=81)
"""Of videos whose prompt and run name none."""
