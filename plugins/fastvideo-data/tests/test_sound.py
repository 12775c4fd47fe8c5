"""The sound of clips: what is read from video files, and what preprocess stores of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tiny_data import OPTIONS, FakeEncoder, write_clip
from torch import Tensor

from fastvideo_core.errors import DataError
from fastvideo_data.data_set import DataSet
from fastvideo_data.preprocessing.audio import SoundTrack
from fastvideo_data.preprocessing.buckets import Buckets
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.video_files import read_frames, write_video

RATE = 16000
CLIP = 5 / 16
"""Seconds of a clip of OPTIONS."""


def tone(frequency: float, seconds: float, rate: int = 48000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_sounding_clip(path: Path, frames: int, sound: np.ndarray, *, caption: str = "", rate: int = 48000) -> None:
    """A clip of 16 frames per second with sound [channels, samples]."""
    write_clip(path, frames, caption=caption)
    write_video(path, read_frames(path), 16.0, audio=sound, sample_rate=rate)


def frequency(samples: np.ndarray, rate: int = RATE) -> float:
    """The strongest frequency in Hz."""
    window = np.hanning(len(samples))
    return float(np.argmax(np.abs(np.fft.rfft(samples * window, 1 << 17))) * rate / (1 << 17))


def level(samples: np.ndarray) -> float:
    """The amplitude of a tone."""
    return float(np.sqrt(2 * np.mean(np.square(samples))))


def steps(*pitches: float, seconds: float) -> np.ndarray:
    """One tone after the other, `seconds` each, in stereo with the right channel at half the level."""
    left = np.concatenate([tone(pitch, seconds) for pitch in pitches])
    return np.stack([left, left / 2])


class SoundingEncoder(FakeEncoder):
    """Keeps waveforms as they are."""

    audio_sample_rate = RATE

    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        for waveform in waveforms:
            assert waveform.dtype == torch.float32
            assert waveform.shape == (2, round(CLIP * RATE))
        return [waveform[None] for waveform in waveforms]


def rows(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


# --- reading ------------------------------------------------------------------------------------------------------------


def test_a_span_holds_the_sound_of_its_own_time(tmp_path: Path) -> None:
    write_sounding_clip(tmp_path / "x.mp4", 32, steps(440, 880, 1320, 1760, seconds=0.5))
    with SoundTrack(tmp_path / "x.mp4", RATE) as track:
        spans = [track.read(start, 0.5) for start in (0.0, 0.5, 1.5)]
    assert [span.shape for span in spans] == [(2, 8000)] * 3
    assert [span.dtype for span in spans] == [np.float32] * 3
    for span, pitch in zip(spans, (440, 880, 1760), strict=True):
        assert frequency(span[0, 400:-400]) == pytest.approx(pitch, abs=2)
        assert level(span[0, 400:-400]) == pytest.approx(0.5, abs=0.02)
        assert level(span[1, 400:-400]) == pytest.approx(0.25, abs=0.02)


def test_a_change_of_pitch_is_where_it_is_in_the_file(tmp_path: Path) -> None:
    silence_then_tone = np.concatenate([np.zeros(24000, np.float32), tone(1000, 0.5)])
    write_sounding_clip(tmp_path / "x.mp4", 16, silence_then_tone[None])
    with SoundTrack(tmp_path / "x.mp4", RATE) as track:
        span = track.read(0.25, 0.5)
    onset = int(np.argmax(np.abs(span[0]) > 0.2)) / RATE
    assert onset == pytest.approx(0.25, abs=0.005)


def test_a_mono_track_sounds_alike_on_both_channels_at_its_own_level(tmp_path: Path) -> None:
    write_sounding_clip(tmp_path / "x.mp4", 16, tone(500, 1.0)[None])
    with SoundTrack(tmp_path / "x.mp4", RATE) as track:
        span = track.read(0.0, 1.0)
    assert np.array_equal(span[0], span[1])
    assert level(span[0, 800:-800]) == pytest.approx(0.5, abs=0.02)


def test_behind_the_end_of_the_sound_there_is_silence(tmp_path: Path) -> None:
    write_sounding_clip(tmp_path / "x.mp4", 16, tone(500, 0.5)[None])
    with SoundTrack(tmp_path / "x.mp4", RATE) as track:
        inside, across, behind = track.read(0.1, 0.25), track.read(0.4, 0.4), track.read(0.8, 0.2)
    assert np.abs(inside[0]).max() > 0.4
    assert np.abs(across[0, :1400]).max() > 0.4
    assert np.abs(across[0, 2400:]).max() == 0
    assert across.shape == (2, 6400)
    assert np.array_equal(behind, np.zeros((2, 3200), np.float32))


def test_spans_side_by_side_are_the_whole(tmp_path: Path) -> None:
    write_sounding_clip(tmp_path / "x.mp4", 32, tone(700, 2.0)[None])
    with SoundTrack(tmp_path / "x.mp4", RATE) as track:
        whole = track.read(0.0, 2.0)
    with SoundTrack(tmp_path / "x.mp4", RATE) as track:
        pieces = [track.read(i * CLIP, CLIP) for i in range(6)]
    assert np.array_equal(np.concatenate(pieces, axis=1), whole[:, : 6 * 5000])


def test_a_sound_that_begins_late_is_not_moved(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    sound = tone(600, 0.5, RATE)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=16)
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for _ in range(16):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(video.encode())
        piece = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16)[None], format="s16", layout="mono")
        piece.sample_rate = RATE
        piece.pts = RATE // 4
        container.mux(audio.encode(piece))
        container.mux(audio.encode())
    with SoundTrack(path, RATE) as track:
        span = track.read(0.0, 1.0)
    assert not span[:, : RATE // 4 - 40].any()
    assert np.abs(span[0, RATE // 4 : RATE // 4 + 200]).max() > 0.4
    assert not span[:, 3 * RATE // 4 + 40 :].any()


def test_a_file_without_an_audio_track_says_so(tmp_path: Path) -> None:
    write_clip(tmp_path / "x.mp4", 5)
    with pytest.raises(DataError, match=r"x\.mp4: the file has no audio track"):
        SoundTrack(tmp_path / "x.mp4", RATE)


# --- preprocess ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A video of two clips whose pitch changes between them, one whose sound ends early, and a silent one."""
    root = tmp_path / "clips"
    root.mkdir()
    write_sounding_clip(root / "a.mp4", 10, steps(500, 1500, seconds=CLIP), caption="two tones")
    write_sounding_clip(root / "b.mp4", 10, tone(800, CLIP)[None], caption="one tone, then nothing")
    write_clip(root / "mute.mp4", 5, caption="no sound at all")
    return root


def test_every_clip_keeps_its_own_sound(clips: Path, tmp_path: Path) -> None:
    preprocess(SoundingEncoder(), clips, tmp_path / "out", OPTIONS)
    batch = next(DataSet(tmp_path / "out" / "with_sound").loader(batch_size=4, seed=0))
    assert batch["audio_latent"].shape == (4, 1, 2, 5000)
    assert [info["audio_sample_rate"] for info in batch["info"]] == [RATE] * 4
    sound = {
        info["id"]: latent[0, 0].numpy() for info, latent in zip(batch["info"], batch["audio_latent"], strict=True)
    }
    pitches = {name: frequency(wave[300:-300]) for name, wave in sound.items() if name != "b.mp4#0001"}
    assert pitches == {
        "a.mp4#0000": pytest.approx(500, abs=3),
        "a.mp4#0001": pytest.approx(1500, abs=3),
        "b.mp4#0000": pytest.approx(800, abs=3),
    }
    assert not sound["b.mp4#0001"][1100:].any()


def test_clips_without_sound_are_reported_and_kept_apart(clips: Path, tmp_path: Path, capsys) -> None:
    report = preprocess(SoundingEncoder(), clips, tmp_path / "out", OPTIONS)
    assert (report.samples, report.without_sound, report.skipped) == (5, ("mute.mp4",), ())
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["without_sound"] == ["mute.mp4"]
    assert f"without sound: 1 x, e.g. mute.mp4; clips in {tmp_path / 'out' / 'without_sound'}" in (
        capsys.readouterr().out
    )
    alone = next(DataSet(tmp_path / "out" / "without_sound").loader(batch_size=1, seed=0))
    assert "audio_latent" not in alone
    assert alone["info"][0]["id"] == "mute.mp4#0000"


def test_sounding_and_silent_clips_are_never_mixed_silently(clips: Path, tmp_path: Path) -> None:
    preprocess(SoundingEncoder(), clips, tmp_path / "out", OPTIONS)
    with pytest.raises(DataError, match="holds no tensor audio_latent, but other files do") as error:
        DataSet(tmp_path / "out").loader(batch_size=1, seed=0)
    folders = " or ".join(str(tmp_path / "out" / name) for name in ("with_sound", "without_sound"))
    assert f"fix: give one of their folders as the data: {folders}" in str(error.value)


def test_sounding_and_silent_clips_go_together_where_the_sound_is_not_read(clips: Path, tmp_path: Path) -> None:
    preprocess(SoundingEncoder(), clips, tmp_path / "out", OPTIONS)
    loader = DataSet(tmp_path / "out", wanted=("text_embedding", "vae_latent")).loader(batch_size=5, seed=0)
    batch = next(loader)
    assert "audio_latent" not in batch
    assert len({info["id"] for info in batch["info"]}) == 5


def test_it_goes_on_where_it_was_cut_off(clips: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    preprocess(SoundingEncoder(), clips, whole, OPTIONS)

    class Killed(SoundingEncoder):
        def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
            if self.videos >= 4:
                raise KeyboardInterrupt
            return super().encode_videos(frames)

    with pytest.raises(KeyboardInterrupt):
        preprocess(Killed(), clips, tmp_path / "out", OPTIONS)
    begun = len(rows(tmp_path / "out"))
    assert 0 < begun < 5
    encoder = SoundingEncoder()
    report = preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert (report.samples, report.resumed, report.without_sound) == (5, begun, ("mute.mp4",))
    assert encoder.videos == 5 - begun
    by_id = [{row["id"]: row for row in rows(folder)} for folder in (whole, tmp_path / "out")]
    assert by_id[0] == by_id[1]


def test_buckets_lie_in_the_folders_of_clips_with_sound_and_without(clips: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(clips / "still.png")
    (clips / "still.txt").write_text("an image")
    buckets = Buckets(areas=(256,), aspects=(1.0,), frames=(1, 5))
    write_sounding_clip(clips / "brief.mp4", 3, tone(500, 0.2)[None], caption="three frames: only one is taken")
    many = replace(OPTIONS, buckets=buckets)
    report = preprocess(SoundingEncoder(), clips, tmp_path / "out", many)
    found = {
        part.parent.relative_to(tmp_path / "out").as_posix(): sorted(pq.read_table(part)["id"].to_pylist())
        for part in (tmp_path / "out").rglob("part-000000.parquet")
    }
    assert found == {
        "with_sound/16x16x5": ["a.mp4#0000", "a.mp4#0001", "b.mp4#0000"],
        "without_sound/16x16x1": ["brief.mp4#0000", "still.png#0000"],
        "without_sound/16x16x5": ["mute.mp4#0000"],
    }
    assert report.samples == 7
    assert report.buckets == {"16x16x1": 2, "16x16x5": 5}
    encoder = SoundingEncoder()
    assert preprocess(encoder, clips, tmp_path / "out", many).resumed == 7
    assert encoder.videos == 0


def test_a_family_without_sound_stores_none(clips: Path, tmp_path: Path) -> None:
    report = preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert (report.samples, report.without_sound) == (5, ())
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.parquet")} == {"out"}
    assert not any("audio_latent_bytes" in row or "audio_sample_rate" in row for row in rows(tmp_path / "out"))
    with pytest.raises(DataError, match="holds samples made without regard to sound"):
        preprocess(SoundingEncoder(), clips, tmp_path / "out", OPTIONS)


def test_damaged_sound_is_a_problem_of_its_video_alone(clips: Path, tmp_path: Path, monkeypatch) -> None:
    read = SoundTrack.read

    def broken(self: SoundTrack, start_sec: float, duration_sec: float) -> np.ndarray:
        if self._path.name == "a.mp4":
            raise DataError("the sound cannot be read: bits fell over")
        return read(self, start_sec, duration_sec)

    monkeypatch.setattr(SoundTrack, "read", broken)
    report = preprocess(SoundingEncoder(), clips, tmp_path / "out", OPTIONS)
    assert [(skip.item, skip.reason) for skip in report.skipped] == [
        ("a.mp4", "unreadable: the sound cannot be read: bits fell over")
    ]
    assert report.samples == 3


def test_a_silent_clip_that_is_replaced_by_one_with_sound_moves(clips: Path, tmp_path: Path) -> None:
    preprocess(SoundingEncoder(), clips, tmp_path / "out", OPTIONS)
    write_sounding_clip(clips / "mute.mp4", 5, tone(900, CLIP)[None], caption="one tone")
    report = preprocess(SoundingEncoder(), clips, tmp_path / "out", OPTIONS)
    assert (report.samples, report.without_sound) == (5, ())
    assert rows(tmp_path / "out" / "without_sound") == []
    (moved,) = (row for row in rows(tmp_path / "out" / "with_sound") if row["file_name"] == "mute.mp4")
    assert moved["caption"] == "one tone"
