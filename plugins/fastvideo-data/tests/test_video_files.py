from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from fastvideo_core.errors import DataError
from fastvideo_data.preprocessing.audio import SoundTrack
from fastvideo_data.video_files import picture_notes, probe, read_frames, write_contact_sheet, write_video


def levels(count: int, height: int = 32, width: int = 32) -> np.ndarray:
    """Grey frames: frame i has brightness 20 + 6 * i."""
    values = (20 + 6 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """Which frame of `levels` each frame is."""
    return [round((float(frame.mean()) - 20) / 6) for frame in frames]


def test_written_frames_come_back_with_their_colours_and_times(tmp_path: Path) -> None:
    frames = np.zeros((9, 32, 48, 3), np.uint8)
    frames[:, :, :16], frames[:, :, 16:32], frames[:, :, 32:] = (220, 30, 40), (30, 200, 60), (20, 60, 230)
    write_video(tmp_path / "x.mp4", frames, 16)
    info = probe(tmp_path / "x.mp4")
    assert (info.frames, info.fps, info.width, info.height, info.has_audio) == (9, 16.0, 48, 32, False)
    assert info.duration_sec == pytest.approx(9 / 16)
    back = read_frames(tmp_path / "x.mp4")
    assert back.shape == frames.shape
    assert back.dtype == np.uint8
    for column in (8, 24, 40):
        assert np.abs(back[4, 16, column].astype(int) - frames[4, 16, column]).max() <= 6


def test_the_file_is_what_browsers_play(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", levels(5), 16)
    with av.open(str(tmp_path / "x.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    content = (tmp_path / "x.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_equal_frames_are_equal_files(tmp_path: Path) -> None:
    """Small blocks of plain colour, and memory that held something else before each time."""
    rng = np.random.default_rng(0)
    files = []
    for content in range(8):
        blocks = np.random.default_rng(content).integers(0, 256, (9, 4, 4, 3))
        frames = np.kron(blocks, np.ones((1, 8, 8, 1))).astype(np.uint8)
        for _ in range(40):
            used = [rng.integers(0, 256, size, dtype=np.uint8) for size in (1000, 3000, 6000, 100_000)]
            del used
            write_video(tmp_path / "clip.mp4", frames, fps=8.0)
            files.append((content, (tmp_path / "clip.mp4").read_bytes()))
    assert len(set(files)) == 8


def test_odd_sizes_grow_by_one_repeated_row_and_column(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", levels(3, 33, 47), 8)
    info = probe(tmp_path / "x.mp4")
    assert (info.height, info.width) == (34, 48)
    assert numbers(read_frames(tmp_path / "x.mp4")[:, -1:, -1:]) == [0, 1, 2]


@pytest.mark.parametrize("channels", [1, 2])
def test_sound_is_written_beside_the_picture(tmp_path: Path, channels: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    write_video(tmp_path / "x.mp4", levels(16), 16, audio=np.stack([tone] * channels), sample_rate=16000)
    assert probe(tmp_path / "x.mp4").has_audio
    with av.open(str(tmp_path / "x.mp4")) as container:
        pieces = [frame.to_ndarray() for frame in container.decode(container.streams.audio[0])]
    heard = np.concatenate(pieces, axis=1)
    assert heard.shape[0] == channels
    assert abs(heard.shape[1] - 16000) <= 2048
    spectrum = np.abs(np.fft.rfft(heard[0, :16000]))
    assert abs(int(spectrum.argmax()) - 440) <= 2


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (32, 16, list(range(0, 32, 2))),  # every second frame
        (16, 16, list(range(32))),
        (8, 16, [k // 2 for k in range(64)]),  # each twice: ties go to the earlier frame
        (24, 16, [0, 1, 3, 4, 6, 7, 9, 10, 12, 13]),
    ],
)
def test_resampling_takes_the_frame_nearest_in_time(
    tmp_path: Path, source: int, target: int, expected: list[int]
) -> None:
    write_video(tmp_path / "x.mp4", levels(32), source)
    got = numbers(read_frames(tmp_path / "x.mp4", fps=target))
    assert len(got) == math.ceil(32 * target / source)
    assert got[: len(expected)] == expected


def test_uneven_frame_times_are_resampled_by_time_not_by_count(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=100)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for array, time in zip(levels(4), (0, 10, 20, 80), strict=True):  # in 1/100 s
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert numbers(read_frames(tmp_path / "x.mp4", fps=10))[:9] == [0, 1, 2, 2, 2, 2, 3, 3, 3]


def test_keeping_the_rate_keeps_every_frame_and_max_frames_stops(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", levels(20), 24)
    assert numbers(read_frames(tmp_path / "x.mp4")) == list(range(20))
    assert numbers(read_frames(tmp_path / "x.mp4", max_frames=3)) == [0, 1, 2]


def test_pictures_are_scaled_to_cover_and_cropped_around_the_centre(tmp_path: Path) -> None:
    frames = np.zeros((2, 32, 96, 3), np.uint8)
    frames[:, :, 32:64] = 200  # the middle third is what a square crop shows
    write_video(tmp_path / "x.mp4", frames, 8)
    picture = read_frames(tmp_path / "x.mp4", height=16, width=16)
    assert picture.shape == (2, 16, 16, 3)
    assert picture[:, :, 2:-2].min() > 180
    whole = read_frames(tmp_path / "x.mp4", height=16, width=48)
    assert whole[:, :, :12].max() < 20
    assert whole[:, :, 20:28].min() > 180


def test_a_clip_filmed_upright_is_read_upright(tmp_path: Path) -> None:
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    frames[:, :, :32] = 200
    write_video(tmp_path / "x.mp4", frames, 8)
    content = bytearray((tmp_path / "x.mp4").read_bytes())
    header = content.index(b"tkhd")
    at = header + 4 + 4 + 20 + 8 + 8  # after version, times and ids, reserved, layer and volume
    clockwise = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in clockwise)
    (tmp_path / "x.mp4").write_bytes(content)
    upright = read_frames(tmp_path / "x.mp4")
    assert upright.shape == (2, 64, 32, 3)
    assert upright[:, :28].min() > 180
    assert upright[:, 36:].max() < 20
    assert read_frames(tmp_path / "x.mp4", height=32, width=16).shape == (2, 32, 16, 3)


def test_files_that_are_no_video_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("not a video")
    with pytest.raises(DataError, match=r"x.mp4: is no valid video: "):
        probe(tmp_path / "x.mp4")
    (tmp_path / "x.png").write_text("not an image")
    with pytest.raises(DataError, match=r"x.png: is no valid image: "):
        read_frames(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"none.mp4: there is no such video file"):
        read_frames(tmp_path / "none.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        piece.sample_rate = 16000
        container.mux(stream.encode(piece))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"sound.mp4: the file has no video track"):
        probe(tmp_path / "sound.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_titles_in_other_encodings_are_no_damage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "un caf\N{LATIN SMALL LETTER E WITH ACUTE}"
        video = container.add_stream("libx264", rate=16)
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for array in levels(5):
            container.mux(video.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 5000), np.float32), format="fltp", layout="mono")
        piece.sample_rate = 16000
        for packets in (sound.encode(piece), sound.encode(), video.encode()):
            container.mux(packets)
    path.write_bytes(path.read_bytes().replace(b"caf\xc3\xa9", b"caf\xe9\xe9"))
    assert probe(path).frames == len(read_frames(path)) == 5
    with SoundTrack(path, 8000) as track:
        assert track.read(0, 0.25).shape == (2, 2000)


def test_whatever_fails_in_reading_a_video_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "x.mp4", levels(2), 16)

    def broken(*args: object) -> None:
        raise KeyError("no such format")

    monkeypatch.setattr("fastvideo_data.video_files._picture", broken)
    with pytest.raises(DataError, match=r"x.mp4: is no valid video: KeyError 'no such format'"):
        read_frames(tmp_path / "x.mp4")


def test_frames_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"frames are float32 \[1, 4, 4, 3\]"):
        write_video(tmp_path / "x.mp4", np.zeros((1, 4, 4, 3), np.float32), 8)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"audio is \[10\] at sample_rate None"):
        write_video(tmp_path / "x.mp4", levels(1), 8, audio=np.zeros(10, np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "size"), [(1, (32, 24)), (4, (140, 24)), (6, (140, 52)), (30, (140, 52))])
def test_a_contact_sheet_shows_up_to_eight_frames(tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    write_contact_sheet(tmp_path / "sheet.png", levels(count, 24, 32))
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == size
    assert sheet.getpixel((0, 0)) == (20, 20, 20)
    if count == 30:
        assert sheet.getpixel((139, 51)) == (194, 194, 194)


def write_tracks(path: Path, *tracks: np.ndarray, default: int | None = None, cover: int | None = None) -> None:
    """A file with several videos of plain frames; `cover` is the number of the one that is a cover picture."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("png" if i == cover else "libx264", rate=16) for i in range(len(tracks))]
        for i, (stream, frames) in enumerate(zip(streams, tracks, strict=True)):
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "rgb24" if i == cover else "yuv420p"
            stream.disposition = Disposition.attached_pic.value if i == cover else int(i == default)
        for stream, frames in zip(streams, tracks, strict=True):
            for array in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            container.mux(stream.encode())


def put_cover_first(path: Path) -> None:
    """Moves an mp4's metadata, in which its cover lies, before its tracks."""
    content = path.read_bytes()
    at = content.index(b"moov") + 4  # behind everything that offsets in the file count from
    boxes = []
    start = at
    while start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        boxes.append(content[start : start + size])
        start += size
    boxes.sort(key=lambda box: box[4:8] != b"udta")
    path.write_bytes(content[:at] + b"".join(boxes))


def test_a_cover_picture_is_never_the_video(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    write_tracks(path, levels(1, 96, 96), levels(20), cover=0)
    put_cover_first(path)
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic
    assert numbers(read_frames(path)) == list(range(20))
    assert (probe(path).height, probe(path).frames) == (32, 20)
    write_tracks(path, levels(1, 96, 96), cover=0)
    with pytest.raises(DataError, match=r"x.mp4: the file has no video track, only a cover picture"):
        read_frames(path)


def test_of_several_videos_the_default_one_is_taken_then_the_largest(tmp_path: Path) -> None:
    write_tracks(tmp_path / "preview.mkv", levels(4), levels(20, 64, 64), default=1)
    assert read_frames(tmp_path / "preview.mkv").shape == (20, 64, 64, 3)
    write_tracks(tmp_path / "angles.mkv", levels(4), levels(20, 64, 64), default=0)
    assert read_frames(tmp_path / "angles.mkv").shape == (4, 32, 32, 3)
    write_tracks(tmp_path / "none.mkv", levels(4), levels(20, 64, 64))
    assert read_frames(tmp_path / "none.mkv").shape == (20, 64, 64, 3)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(
    ("tags", "red", "blue"),
    [
        ({"colorspace": 1}, 0.2126, 0.0722),  # BT.709
        ({"colorspace": 5}, 0.299, 0.114),  # BT.601
        ({"colorspace": 6}, 0.299, 0.114),
        ({"colorspace": 2}, 0.299, 0.114),  # unsaid, and small
        ({"colorspace": 7}, 0.212, 0.087),  # SMPTE 240M
        ({"colorspace": 9}, 0.2627, 0.0593),  # BT.2020
        ({"colorspace": 2, "color_primaries": 9}, 0.2627, 0.0593),  # unsaid, and wide
    ],
)
def test_every_matrix_and_range_gives_the_colours_back(
    tmp_path: Path, tags: dict[str, int], red: float, blue: float, full_range: bool
) -> None:
    path, colour = tmp_path / "x.mp4", (220, 40, 30)
    write_tagged(path, colour, weights=(red, blue), color_range=1 + full_range, **tags)
    assert np.abs(read_frames(path)[1, 24, 32].astype(int) - colour).max() <= 3


def test_what_a_clip_loses_of_its_picture_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    write_video(path, levels(2, 48, 96), 8)
    assert picture_notes(path, height=48, width=96) == ()
    assert picture_notes(path, height=48, width=64) == ()
    assert picture_notes(path, height=48, width=48) == ("cropped: 50% of the picture are left",)
    assert picture_notes(path, height=72, width=144) == ("enlarged: 1.5 times, from 96 x 48 pixels",)


def test_colours_that_are_not_converted_are_noted(tmp_path: Path) -> None:
    def notes(**tags: int) -> list[str]:
        write_tagged(tmp_path / "x.mp4", (220, 40, 30), **tags)
        return [note.split(":")[0] for note in picture_notes(tmp_path / "x.mp4", height=48, width=64)]

    assert notes(colorspace=1, color_primaries=1, color_trc=1) == []
    assert notes(colorspace=9, color_primaries=9, color_trc=14) == ["wide colours"]
    assert notes(colorspace=9, color_primaries=9, color_trc=16) == ["PQ picture (HDR)", "wide colours"]
    assert notes(colorspace=9, color_primaries=9, color_trc=18) == ["HLG picture (HDR)", "wide colours"]
    assert notes(colorspace=10, color_primaries=1, color_trc=14) == ["colour matrix that is not read"]


def write_tagged(
    path: Path, colour: tuple[int, int, int], *, weights: tuple[float, float] = (0.2627, 0.0593), **tags: int
) -> None:
    """Three plain frames of 48 x 64 in 10 bits; the weights of red and blue in luma make them, the tags describe them."""
    r, g, b = (value / 255 for value in colour)
    luma = weights[0] * r + (1 - sum(weights)) * g + weights[1] * b
    blueness, redness = (b - luma) / (2 - 2 * weights[1]), (r - luma) / (2 - 2 * weights[0])
    if tags.get("color_range") == 2:
        values = (1023 * luma, 1023 * blueness + 512, 1023 * redness + 512)
    else:
        values = (876 * luma + 64, 896 * blueness + 512, 896 * redness + 512)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=16)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p10le"
        stream.options = {"crf": "4", "x265-params": "log-level=error"}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for _ in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p10le")
            for plane, value in zip(frame.planes, values, strict=True):
                plane.update(np.full(plane.buffer_size // 2, round(value), "<u2"))
            frame.colorspace, frame.color_range = tags["colorspace"], tags.get("color_range", 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    for name, write in (
        ("a.png", lambda path: write_contact_sheet(path, frames)),
        ("a.mp4", lambda path: write_video(path, frames, 8.0)),
    ):
        for place in (f".{name}.partial", name):
            (tmp_path / place).symlink_to(tmp_path / "precious")
        write(tmp_path / name)
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"
