"""The videos that Wan makes where nothing else is said: the one thing about sizes that its folders do not tell."""

from __future__ import annotations

from dataclasses import dataclass

from fastvideo_data.video_sizes import VideoSize


@dataclass(frozen=True)
class UsualVideo:
    """What a generation of Wan was trained on.

    Args:
        fps: frames per second.
        size: of videos whose prompt and run name none.
    """

    fps: float
    size: VideoSize


USUAL = UsualVideo(16.0, VideoSize(height=480, width=832, num_frames=81))
USUAL_OF_TI2V = UsualVideo(24.0, VideoSize(height=704, width=1280, num_frames=121))
