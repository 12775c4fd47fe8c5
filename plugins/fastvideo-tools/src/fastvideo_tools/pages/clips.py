"""Videos inside a page: the mp4 itself as a data URI, with a still picture before and a moving WebP where h264 does not play."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from fastvideo_data.video_files import Frames, probe, read_frames

FALL_BACK = """
for (const video of document.querySelectorAll('video')) {
  const source = video.querySelector('source');
  const still = () => { const image = document.createElement('img'); image.className = 'clip';
    image.src = video.dataset.webp; image.alt = video.getAttribute('aria-label'); video.replaceWith(image); };
  source.addEventListener('error', still);
  if (!video.canPlayType('video/mp4; codecs="avc1.42E01E"')) still();
}
"""
"""For the end of a page with clips: where the browser cannot play h264, the moving picture takes the video's place."""


def clip(path: Path, label: str) -> str:
    """A video that plays by itself, over and over; needs FALL_BACK on the page."""
    frames = read_frames(path)
    return (
        f'<video autoplay loop muted playsinline aria-label="{escape(label)}" title="{escape(label)}" '
        f'poster="{data_uri("image/png", still(frames))}" '
        f'data-webp="{data_uri("image/webp", moving(frames, probe(path).fps))}">'
        f'<source type="video/mp4" src="{data_uri("video/mp4", path.read_bytes())}"></video>'
    )


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def still(frames: Frames) -> bytes:
    """The middle frame as PNG."""
    file = io.BytesIO()
    Image.fromarray(frames[len(frames) // 2]).save(file, format="PNG")
    return file.getvalue()


def moving(frames: Frames, fps: float) -> bytes:
    """All frames as an animated WebP that loops."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    duration = round(1000 / fps) if fps else 100
    first.save(file, format="WEBP", save_all=True, append_images=others, duration=duration, loop=0, quality=80)
    return file.getvalue()
