"""Image files: which they are, and those that a video decoder would not show as they look."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fastvideo_core.errors import foreign_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def turned_or_transparent(path: Path) -> av.VideoFrame | None:
    """An image that its file wants turned or mirrored (EXIF), upright, or one that is transparent somewhere, on white.

    Returns:
        None for all other files, which ffmpeg decodes.

    Raises:
        DataError: the file cannot be read.
    """
    with foreign_file(path, "image"):
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            return None
        with image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            if not turned and "A" not in image.getbands() and "transparency" not in image.info:
                return None
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        white.alpha_composite(upright)
        return av.VideoFrame.from_ndarray(np.asarray(white.convert("RGB")), format="rgb24")
