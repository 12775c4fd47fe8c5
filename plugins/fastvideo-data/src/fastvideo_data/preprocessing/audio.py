"""The sound of video files, read in step with the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import numpy.typing as npt

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.video_files import default_streams, opened, video_stream

Waveform = npt.NDArray[np.float32]

CHANNELS = 2
_WHAT = "sound"
_FIX = "copy or convert the file again, or remove its audio track"
_JITTER_SECONDS = 0.02
"""Timestamps of consecutive pieces of sound may contradict their lengths by so much; beyond it there is a gap."""


class SoundTrack:
    """The sound of a video in stereo at one sample rate, from the time of the first picture on.

    Time spans are read in order, so that a long file is decoded once and never held as a whole. Where the file has no
    sound (before its start, behind its end, in gaps) there is silence. A mono track sounds on both channels alike; more
    than two channels are mixed down.

    Args:
        path: a video file with an audio track.
        sample_rate: samples per second of what is read.

    Raises:
        DataError: the file cannot be read, or has no audio track.
    """

    def __init__(self, path: str | Path, sample_rate: int) -> None:
        self._path = Path(path)
        self._rate = sample_rate
        self._start = _first_picture(self._path)
        with foreign_file(self._path, _WHAT, fix=_FIX):
            self._container = av.open(str(self._path), metadata_errors="replace")
        if not self._container.streams.audio:
            self._container.close()
            raise DataError(Problem("the file has no audio track", str(self._path)))
        self._pieces = self._decoded(default_streams(self._container.streams.audio)[0])
        self._held = np.zeros((CHANNELS, 0), np.float32)
        self._position = 0  # the sample at which `_held` begins

    def __enter__(self) -> SoundTrack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._container.close()

    def read(self, start_sec: float, duration_sec: float) -> Waveform:
        """The sound of a time span: float32 [2, round(duration_sec * sample_rate)] in [-1, 1].

        Args:
            start_sec: seconds behind the first picture; not before the start of the span that was read last.
            duration_sec: seconds, > 0.

        Raises:
            DataError: the sound is damaged.
        """
        first = round(start_sec * self._rate)
        count = round(duration_sec * self._rate)
        while self._position + self._held.shape[1] < first + count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._append(*piece)
            self._drop_before(first)
        self._drop_before(first)
        out = np.zeros((CHANNELS, count), np.float32)
        begin = self._position - first
        there = self._held[:, : max(count - begin, 0)]
        out[:, begin : begin + there.shape[1]] = there
        return out

    def _append(self, index: int, samples: Waveform) -> None:
        end = self._position + self._held.shape[1]
        if end and abs(index - end) <= _JITTER_SECONDS * self._rate:
            index = end
        overlap = max(end - index, 0)
        gap = np.zeros((CHANNELS, max(index - end, 0)), np.float32)
        self._held = np.concatenate([self._held, gap, samples[:, overlap:]], axis=1)

    def _drop_before(self, sample: int) -> None:
        drop = min(max(sample - self._position, 0), self._held.shape[1])
        self._held = self._held[:, drop:]
        self._position += drop

    def _decoded(self, stream: av.AudioStream) -> Iterator[tuple[int, Waveform]]:
        """Pieces of the resampled sound, each with the number of its first sample behind the first picture."""
        layout = "mono" if stream.channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=self._rate)
        with foreign_file(self._path, _WHAT, fix=_FIX):
            for frame in self._container.decode(stream):
                yield from self._placed(resampler.resample(frame))
            yield from self._placed(resampler.resample(None))

    def _placed(self, frames: list[av.AudioFrame]) -> Iterator[tuple[int, Waveform]]:
        for frame in frames:
            samples = np.broadcast_to(frame.to_ndarray(), (CHANNELS, frame.samples))
            time = self._start if frame.time is None else frame.time
            index = round((time - self._start) * self._rate)
            yield max(index, 0), np.asarray(samples[:, max(-index, 0) :], np.float32)


def _first_picture(path: Path) -> float:
    with opened(path, _WHAT, _FIX) as container:
        frame = next(container.decode(video_stream(container, path)), None) if container.streams.video else None
    return 0.0 if frame is None or frame.time is None else frame.time
