"""The demo in one moving picture: what each sampler makes of the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fastvideo_data.video_files import Frames, read_frames
from fastvideo_tools.demo.clips import Content
from fastvideo_tools.demo.results import Row, video_path

SIDE = 96
GAP = 4
TITLE_WIDTH = 182
CAPTION_HEIGHT = 18
FRAME_MILLISECONDS = 120
LAST_FRAME_MILLISECONDS = 700


def write_picture(out: Path, rows: Sequence[Row], prompts: Mapping[int, Content]) -> Path:
    """Writes demo.gif into the demo's folder: a row for the held-out clips and for every sampler, a column for a prompt.

    Args:
        prompts: whose videos are shown, by their number.
    """
    clips = [[read_frames(video_path(out, row, number)) for number in prompts] for row in rows]
    length = min(len(clip) for row in clips for clip in row)
    pictures = [_picture([[clip[frame] for clip in row] for row in clips], rows, prompts) for frame in range(length)]
    colours = pictures[0].quantize(64)  # the same ones in every frame, so that nothing flickers
    pictures = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures]
    durations = [FRAME_MILLISECONDS] * (length - 1) + [LAST_FRAME_MILLISECONDS]
    path = out / "demo.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)
    return path


def _picture(frames: Sequence[Sequence[Frames]], rows: Sequence[Row], prompts: Mapping[int, Content]) -> Image.Image:
    step = SIDE + GAP
    picture = Image.new("RGB", (TITLE_WIDTH + step * len(prompts), CAPTION_HEIGHT + step * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(12), ImageFont.load_default(9)
    for column, content in enumerate(prompts.values()):
        text = f"{content.colour} {content.shape}, {content.direction}"
        draw.text((TITLE_WIDTH + column * step, 2), text, fill="black", font=small)
    for line, row in enumerate(rows):
        top = CAPTION_HEIGHT + line * step
        draw.text((6, top + SIDE // 2 - 8), row.title, fill="black", font=font)
        for column, frame in enumerate(frames[line]):
            shown = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            picture.paste(shown, (TITLE_WIDTH + column * step, top))
    return picture
