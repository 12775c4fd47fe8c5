"""Video files: probing, reading at a chosen frame rate and size, and writing mp4 and contact sheets."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.images import is_image, turned_or_transparent
from fastvideo_data.schema import published
from fastvideo_data.video_sizes import ENLARGED

Frames = npt.NDArray[np.uint8]
"""[T, H, W, 3]."""
_TimedFrames = Iterator[tuple[float, av.VideoFrame]]
S = TypeVar("S", av.VideoStream, av.AudioStream)

HEAVY_CROP = 0.6
"""A clip that shows less than this part of its file's picture is noted."""

_BT709, _UNSPECIFIED, _BT601, _BT2020 = 1, 2, 5, 9  # as ffmpeg numbers matrices
_MATRICES = {_BT709: _BT709, 4: 4, 5: _BT601, 6: _BT601, 7: 7, _BT2020: _BT2020, 10: _BT2020}
"""The matrix that a frame is converted with, by its own."""
_UNREAD_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    13: "constant luminance",
    14: "ICtCp",
    15: "IPT-PQ-C2",
}
_HDR = {16: "PQ", 18: "HLG"}
_COVER = Disposition.attached_pic | Disposition.timed_thumbnails
_SHEET_FRAMES = 8
_SHEET_GAP = 4


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Args:
        frames: number of frames.
        fps: average frames per second.
        duration_sec: seconds.
        width: stored width in pixels.
        height: stored height in pixels.
        has_audio: whether there is an audio track.
    """

    frames: int
    fps: float
    duration_sec: float
    width: int
    height: int
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Describe a video file without decoding it.

    Raises:
        DataError: the file is missing, is no video, or has no video track.
    """
    with opened(Path(path)) as container:
        stream = video_stream(container, Path(path))
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        frames = stream.frames
        if not frames:
            frames = sum(1 for packet in container.demux(stream) if packet.size)
        return VideoInfo(
            frames=frames,
            fps=fps,
            duration_sec=frames / fps if fps else 0.0,
            width=stream.width,
            height=stream.height,
            has_audio=bool(container.streams.audio),
        )


def iter_frames(
    path: str | Path, *, height: int | None = None, width: int | None = None, fps: float | None = None
) -> Iterator[Frames]:
    """The frames of a video, or of an image, one after the other, as uint8 RGB [H, W, 3], upright.

    Args:
        path: the video file.
        height: target height in pixels; the picture is scaled to cover height x width and cropped around its centre.
        width: target width; height and width come together, None keeps the size.
        fps: frames per second to resample to: at every 1/fps seconds the source frame nearest in time; None keeps
            the source's frames as they are.

    Raises:
        DataError: the file is missing, is no video, or is damaged.
    """
    with _opened_frames(Path(path), "AUTO") as (frames, aspect, frame_seconds):
        # One for all frames: each would set up its scaling anew, which takes longer than to scale a small frame.
        reformatter = VideoReformatter()
        for frame, repeats in _resampled(frames, fps, frame_seconds):
            picture = _picture(frame, reformatter, height, width, aspect)
            yield from itertools.repeat(picture, repeats)


def read_frames(
    path: str | Path,
    *,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
) -> Frames:
    """Read a video into uint8 RGB [T, H, W, 3]; see iter_frames. At most `max_frames` frames, None for all.

    Raises:
        DataError: as iter_frames, or the video has no frame.
    """
    frames = list(itertools.islice(iter_frames(path, height=height, width=width, fps=fps), max_frames))
    if not frames:
        raise DataError(Problem("the video has no frame that can be decoded", str(path)))
    return np.stack(frames)


def write_video(
    path: str | Path,
    frames: Frames,
    fps: float,
    *,
    audio: npt.NDArray[np.float32] | None = None,
    sample_rate: int | None = None,
) -> None:
    """Write an mp4 (h264, yuv420p, AAC sound) that plays while it loads; complete or absent.

    Args:
        path: the file to write.
        frames: uint8 RGB [T, H, W, 3]; an odd height or width grows by one repeated row or column.
        fps: frames per second, > 0.
        audio: float32 [channels, samples] in [-1, 1], one or two channels, or None.
        sample_rate: samples per second of `audio`.

    Raises:
        DataError: frames or audio have another shape or dtype.
    """
    path = Path(path)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        found = f"frames are {frames.dtype} {list(frames.shape)}"
        raise DataError(Problem(found, str(path), allowed="uint8 [T, H, W, 3] with at least one frame"))
    if audio is not None and (audio.ndim != 2 or audio.shape[0] not in (1, 2) or not sample_rate):
        found = f"audio is {list(audio.shape)} at sample_rate {sample_rate}"
        raise DataError(Problem(found, str(path), allowed="[1 or 2, samples] with a sample_rate"))
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        published(path) as aside,
        av.open(str(aside), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        _, height, width, _ = frames.shape
        video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        # x264's macroblock tree reads memory that it did not write where frames are small: equal frames, other files.
        video.options = {"crf": "18", "preset": "medium", "x264-params": "mbtree=0"}
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        sound = None
        if audio is not None and sample_rate is not None:
            sound = container.add_stream("aac", rate=sample_rate, layout="mono" if len(audio) == 1 else "stereo")
        reformatter = VideoReformatter()
        for array in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame = reformatter.reformat(
                frame, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None and audio is not None and sample_rate is not None:
            samples = np.ascontiguousarray(audio, dtype=np.float32)
            piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout=sound.layout.name)
            piece.sample_rate = int(sample_rate)
            piece.pts, piece.time_base = 0, Fraction(1, int(sample_rate))  # else AAC's lead-in delays the sound
            container.mux(sound.encode(piece))
            container.mux(sound.encode())


def write_contact_sheet(path: str | Path, frames: Frames) -> None:
    """Write a PNG with up to eight frames, evenly spread from the first to the last, in rows of four.

    Args:
        path: the file to write.
        frames: uint8 RGB [T, H, W, 3].
    """
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, min(_SHEET_FRAMES, len(frames))).round().astype(int))]
    count, height, width, _ = chosen.shape
    columns = min(4, count)
    rows = math.ceil(count / columns)
    size = (columns * (width + _SHEET_GAP) - _SHEET_GAP, rows * (height + _SHEET_GAP) - _SHEET_GAP)
    sheet = Image.new("RGB", size, "white")
    for i, frame in enumerate(chosen):
        place = (i % columns * (width + _SHEET_GAP), i // columns * (height + _SHEET_GAP))
        sheet.paste(Image.fromarray(np.ascontiguousarray(frame)), place)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as aside:
        sheet.save(aside, format="PNG")


@contextmanager
def opened(path: Path, what: str = "video", fix: str = "copy or convert the file again") -> Iterator[InputContainer]:
    """A media file, open; whatever goes wrong while it is read is one message.

    Args:
        path: the file.
        what: what is read of it.
        fix: what to do about one that is damaged.

    Raises:
        DataError: the file is missing, or cannot be read.
    """
    if not path.is_file():
        raise DataError(Problem(f"there is no such {'image' if is_image(path) else 'video'} file", str(path)))
    # Titles and the like are in any encoding, and of no interest here.
    with foreign_file(path, what, fix=fix), av.open(str(path), metadata_errors="replace") as container:
        yield container


def video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """The video of a file: of several tracks its default one, then the largest; never a cover picture.

    Raises:
        DataError: there is none.
    """
    streams = container.streams.video
    videos = [stream for stream in streams if not stream.disposition & _COVER]
    if not videos:
        found = "the file has no video track" + (", only a cover picture" if streams else "")
        raise DataError(Problem(found, str(path)))
    return max(default_streams(videos), key=lambda stream: stream.width * stream.height)


def default_streams(streams: Sequence[S]) -> Sequence[S]:
    """Those of several tracks that the file marks as default; all where it marks none."""
    return [stream for stream in streams if stream.disposition & Disposition.default] or streams


@contextmanager
def _opened_frames(path: Path, threads: str = "SLICE") -> Iterator[tuple[_TimedFrames, float, float]]:
    """The frames of a file with their times, how wide its pixels are for their height, and seconds from frame to frame."""
    image = turned_or_transparent(path) if is_image(path) and path.is_file() else None
    if image is not None:
        yield iter([(0.0, image)]), 1.0, 1 / 25
        return
    with opened(path, "image" if is_image(path) else "video") as container:
        stream = video_stream(container, path)
        stream.thread_type = threads
        yield _decoded(container, stream), float(stream.sample_aspect_ratio or 1), _frame_seconds(stream)


def _first_frame(path: Path) -> tuple[av.VideoFrame, float]:
    """The first frame as it is stored, and how wide its pixels are for their height."""
    with _opened_frames(path) as (frames, aspect, _):
        _, frame = next(frames, (0.0, None))
        if frame is None:
            raise DataError(Problem("the video has no frame that can be decoded", str(path)))
        return frame, aspect


def _decoded(container: InputContainer, stream: av.VideoStream) -> Iterator[tuple[float, av.VideoFrame]]:
    seconds = _frame_seconds(stream)
    for i, frame in enumerate(container.decode(stream)):
        yield (i * seconds if frame.time is None else frame.time), frame


def _frame_seconds(stream: av.VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 1 / 25


def _resampled(
    frames: Iterator[tuple[float, av.VideoFrame]], fps: float | None, frame_seconds: float
) -> Iterator[tuple[av.VideoFrame, int]]:
    """Each source frame that is needed, and how often: the k-th output is the frame nearest to k / fps."""
    if fps is None:
        yield from ((frame, 1) for _, frame in frames)
        return
    first = None
    previous = None
    count = 0
    time = 0.0
    for now, frame in frames:
        first = now if first is None else first
        middle = (time + now - first) / 2
        time = now - first
        if previous is not None:
            repeats = _due(middle, fps) - count
            if repeats > 0:
                yield previous, repeats
                count += repeats
        previous = frame
    if previous is not None:
        # Targets lie before the end of the last frame; the tolerance keeps 1/fps sums from adding one.
        repeats = math.ceil((time + frame_seconds) * fps - 1e-3) - count
        if repeats > 0:
            yield previous, repeats


def _due(until: float, fps: float) -> int:
    """How many targets k / fps lie at or before `until`."""
    return math.floor(until * fps + 1e-6) + 1


def _picture(
    frame: av.VideoFrame, reformatter: VideoReformatter, height: int | None, width: int | None, aspect: float
) -> Frames:
    turns = round(frame.rotation / 90)
    if height is None or width is None:
        height, width = (frame.height, frame.width)[:: -1 if turns % 2 else 1]
        aspect = 1.0
    if turns % 2:
        height, width = width, height
    cover_width, cover_height = _cover(frame, height, width, aspect)
    frame.colorspace = _matrix(frame)  # av 17 heeds no other way to name BT.2020
    array = reformatter.reformat(
        frame,
        width=cover_width,
        height=cover_height,
        format="rgb24",
        interpolation=Interpolation.BICUBIC,
    ).to_ndarray()
    top, left = (cover_height - height) // 2, (cover_width - width) // 2
    return np.ascontiguousarray(np.rot90(array[top : top + height, left : left + width], turns))


def _cover(frame: av.VideoFrame, height: int, width: int, aspect: float) -> tuple[int, int]:
    """Width and height of the whole picture where it just covers height x width, both as the frame is stored."""
    scale = max(width / (frame.width * aspect), height / frame.height)
    return max(width, round(frame.width * aspect * scale)), max(height, round(frame.height * scale))


def _matrix(frame: av.VideoFrame) -> int:
    wide = frame.color_primaries == _BT2020
    unsaid = _BT2020 if wide else _BT709 if frame.height >= 720 else _BT601
    return _MATRICES.get(frame.colorspace, unsaid)


def picture_size(path: str | Path) -> tuple[float, float]:
    """Height and width of a file's picture as it is seen: upright, in square pixels.

    Raises:
        DataError: as `iter_frames`, or the video has no frame.
    """
    frame, aspect = _first_frame(Path(path))
    height, width = float(frame.height), frame.width * aspect
    return (width, height) if round(frame.rotation / 90) % 2 else (height, width)


def picture_notes(path: str | Path, *, height: int, width: int) -> tuple[str, ...]:
    """What a clip of height x width loses of its file's picture, or shows otherwise; "kind: how much" each.

    Raises:
        DataError: as `iter_frames`, or the video has no frame.
    """
    frame, aspect = _first_frame(Path(path))
    if round(frame.rotation / 90) % 2:
        height, width = width, height
    cover_width, cover_height = _cover(frame, height, width, aspect)
    kept = height * width / (cover_height * cover_width)
    enlarged = max(cover_width / frame.width, cover_height / frame.height)
    notes = []
    if kept < HEAVY_CROP:
        notes.append(f"cropped: {kept:.0%} of the picture are left")
    if enlarged > ENLARGED:
        notes.append(f"enlarged: {enlarged:.1f} times, from {frame.width} x {frame.height} pixels")
    if frame.color_trc in _HDR:
        notes.append(f"{_HDR[frame.color_trc]} picture (HDR): brightness is taken as stored, without tone mapping")
    if frame.color_primaries == _BT2020:
        notes.append("wide colours: the primaries of BT.2020 are taken as stored, and look paler than they are")
    if frame.colorspace in _UNREAD_MATRICES:
        near = {_BT2020: "BT.2020", _BT709: "BT.709", _BT601: "BT.601"}[_matrix(frame)]
        notes.append(f"colour matrix that is not read: {_UNREAD_MATRICES[frame.colorspace]}, taken as {near}")
    return tuple(notes)


def animated_gif(path: str | Path) -> bytes:
    """A video file's frames as an endless GIF.

    GIF counts time in hundredths of a second; browsers play frames shorter than 0.02 s slowly, so that is the shortest.
    """
    frames = [Image.fromarray(np.asarray(frame)) for frame in iter_frames(path)]
    times = np.arange(len(frames) + 1) * 100 / (probe(path).fps or 16)
    durations: list[Any] = [max(2, int(length)) * 10 for length in np.diff(times.round())]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()
