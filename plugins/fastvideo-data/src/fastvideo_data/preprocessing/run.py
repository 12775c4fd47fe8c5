"""From raw videos and captions to a parquet data set: resumable, atomic, and with an account of everything skipped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_core.launch.stdio import say
from fastvideo_data.encoder import AudioEncoder, LatentEncoder
from fastvideo_data.preprocessing.account import Noted, PreprocessReport, Skipped
from fastvideo_data.preprocessing.audio import SoundTrack, Waveform
from fastvideo_data.preprocessing.encoded_captions import EncodedCaption, encode_captions
from fastvideo_data.preprocessing.file_state import FileState
from fastvideo_data.preprocessing.output_folder import check_data_output
from fastvideo_data.preprocessing.part_files import ItemRecord, PartFiles, VideoRecord
from fastvideo_data.preprocessing.progress import progress
from fastvideo_data.preprocessing.raw_videos import IMAGE_SUFFIXES, Source, SourceItem, discover
from fastvideo_data.preprocessing.renewal import renew
from fastvideo_data.schema import (
    LATENTS,
    SOUND_METADATA,
    TEXT_METADATA,
    VIDEO_METADATA,
    arrow_schema,
    encode_tensor,
)
from fastvideo_data.video_files import Frames, iter_frames, picture_notes, probe


@dataclass(frozen=True)
class PreprocessOptions:
    """How videos become clips.

    Args:
        height: clip height in pixels; videos are scaled to cover height x width and cropped around the centre.
        width: clip width in pixels.
        num_frames: pixel frames of a clip.
        fps_policy: "resample" brings every video to `fps`; "keep" takes its frames as they are.
        fps: frames per second for "resample"; None for the model's own. None with "keep".
        clips: "first" takes one clip from each video's start; "all" cuts it into consecutive, disjoint clips.
        samples_per_file: samples in a part file; a kill loses at most that many.
        batch_size: clips, or prompts, that are encoded together.
        prune: take samples of what the source no longer lists out of the data set, and take it that all clips changed.
    """

    height: int
    width: int
    num_frames: int
    fps_policy: Literal["resample", "keep"] = "resample"
    fps: float | None = None
    clips: Literal["first", "all"] = "first"
    samples_per_file: int = 32
    batch_size: int = 1
    prune: bool = False


def preprocess(
    encoder: LatentEncoder, source: str | Path, output_dir: str | Path, options: PreprocessOptions
) -> PreprocessReport:
    """Encode every video and caption (or every prompt) of `source` into parquet files in `output_dir`.

    May be called again after a kill, or with more clips, with the same options: what is there already is kept, and follows
    its source (`renew`). Prints a progress bar and a summary, and writes report.json.

    With an `AudioEncoder`, clips of videos with an audio track go with their sound into the sub-folder WITH_SOUND, those of
    other videos into WITHOUT_SOUND.

    Raises:
        DataError: sizes that the model cannot encode, a source that cannot be understood, an output folder that holds
            something else or more than the source lists, or not one usable sample.
        ConfigError: the output folder cannot be written.
        DataWriteError: the disk is full, or refuses; what is in the data set is whole, and a further call goes on.
    """
    started = time.monotonic()
    check_data_output(output_dir, source)
    found = discover(source, images=options.num_frames == 1)
    check_data_output(output_dir, *found.folders)
    if found.has_videos:
        encoder.geometry.check(height=options.height, width=options.width, num_frames=options.num_frames)
    _check_options(options)
    parts = PartFiles(
        Path(output_dir),
        settings=_settings(encoder, options, found),
        normalised=_normalised(encoder.describe()),
        samples_per_file=options.samples_per_file,
        sound=found.has_videos and isinstance(encoder, AudioEncoder),
    )
    changed = renew(parts, found, encoder, prune=options.prune)
    resumed = parts.samples
    run = _Run(encoder, options, parts)
    items = progress(found.items, "video" if found.has_videos else "prompt")
    for pending in _batched(run.wanted(items), options.batch_size):
        run.encode(pending)
    parts.flush()
    skipped = [Skipped(problem.item, problem.reason) for problem in found.problems] + run.skipped
    report = PreprocessReport(
        output_dir=parts.path,
        samples=parts.samples,
        resumed=resumed,
        files=parts.files,
        skipped=tuple(skipped),
        unused_frames={name: video.unused_frames for name, video in parts.videos.items() if video.unused_frames},
        seconds=time.monotonic() - started,
        without_sound=parts.without_sound,
        noted=changed
        + tuple(Noted(item, note) for item, record in parts.items.items() for note in record.notes + record.text_notes),
    )
    report.write()
    say(report.summary(), flush=True)
    if not report.samples:
        shown = "; ".join(f"{skip.item}: {skip.reason}" for skip in skipped[:5]) or "the source is empty"
        raise DataError(Problem(f"not one usable sample: {shown}", str(source), fix="see report.json for all of them"))
    return report


@dataclass(frozen=True)
class _Clip:
    frames: Frames
    sound: Waveform | None


@dataclass(frozen=True)
class _Pending:
    id: str
    item: SourceItem
    clip: _Clip | None
    fps: float
    record: ItemRecord
    completes: dict[str, VideoRecord]


class _Run:
    """One pass over a source: cuts clips, encodes them, hands rows to the parts folder."""

    def __init__(self, encoder: LatentEncoder, options: PreprocessOptions, parts: PartFiles) -> None:
        self._encoder = encoder
        self._options = options
        self._parts = parts
        self._texts: dict[str, EncodedCaption] = {}
        self.skipped: list[Skipped] = []

    def wanted(self, items: Iterator[SourceItem]) -> Iterator[_Pending]:
        """What is still to encode: clips in order, with the frames of each."""
        for item in items:
            if item.video is None:
                if not self._parts.holds(item.id):
                    yield _Pending(item.id, item, None, 0.0, ItemRecord(), {})
            elif (record := self._parts.videos.get(item.id)) is not None:
                self._report(item, record.problem)
            else:
                yield from self._clips(item, item.video)

    def encode(self, pending: Sequence[_Pending]) -> None:
        """Encode some clips or prompts together and keep the rows."""
        self._encode_captions([one.item.caption for one in pending])
        clips = [one.clip for one in pending if one.clip is not None]
        latents: list[dict[str, Tensor]] = [{} for _ in pending]
        if clips:
            latents = self._encoder.encode_videos(torch.from_numpy(np.stack([clip.frames for clip in clips])))
            _check_encoded(self._encoder, latents)
            latents = self._with_sound(clips, latents)
        for one, tensors in zip(pending, latents, strict=True):
            text = self._texts[one.item.caption]
            named = {**tensors, "text_embedding": text.embedding}
            sound = one.clip is not None and one.clip.sound is not None
            row: dict[str, Any] = self._metadata(one, tensors)
            for name, tensor in named.items():
                row.update(encode_tensor(name, tensor))
            metadata = SOUND_METADATA if sound else VIDEO_METADATA if clips else TEXT_METADATA
            record = replace(one.record, text_notes=text.notes)
            schema = arrow_schema(tuple(named), metadata)
            self._parts.add(row, schema, item=one.item.id, record=record, videos=one.completes, sound=sound)

    def _with_sound(self, clips: Sequence[_Clip], latents: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        waveforms = [torch.from_numpy(clip.sound) for clip in clips if clip.sound is not None]
        if not waveforms:
            return list(latents)
        assert isinstance(self._encoder, AudioEncoder)
        encoded = iter(self._encoder.encode_audio(waveforms))
        return [
            tensors if clip.sound is None else {**tensors, "audio_latent": next(encoded)}
            for clip, tensors in zip(clips, latents, strict=True)
        ]

    def _encode_captions(self, captions: Sequence[str]) -> None:
        # The clips of a video share its caption: what the last batch encoded is used again.
        known = {caption: self._texts[caption] for caption in captions if caption in self._texts}
        new = [caption for caption in captions if caption not in known]
        self._texts = {**known, **encode_captions(self._encoder, new)}

    def _metadata(self, one: _Pending, tensors: dict[str, Tensor]) -> dict[str, Any]:
        row: dict[str, Any] = {"id": one.id, "caption": one.item.caption}
        if one.item.video is not None:
            size = self._options
            kind = "image" if one.item.video.suffix.lower() in IMAGE_SUFFIXES else "video"
            row.update(file_name=one.item.video.name, media_type=kind, width=size.width, height=size.height)
            row.update(num_frames=tensors["vae_latent"].shape[1], fps=one.fps, duration_sec=size.num_frames / one.fps)
            if "audio_latent" in tensors and isinstance(self._encoder, AudioEncoder):
                row.update(audio_sample_rate=self._encoder.audio_sample_rate)
        return row

    def _report(self, item: SourceItem, problem: str) -> None:
        if problem:
            self.skipped.append(Skipped(item.id, problem))

    def _clips(self, item: SourceItem, video: Path) -> Iterator[_Pending]:
        """The clips of one video that are not there yet; the last one completes the video."""
        length = self._options.num_frames
        fps = 0.0
        held: _Clip | None = None  # only the end of the video tells which clip is the last
        rest: list[Frames] = []
        count = 0
        problem = ""
        record = ItemRecord()
        try:
            fps = self._fps(video)
            resampled = fps if self._options.fps_policy == "resample" else None
            with foreign_file(video, "video"):
                file = FileState.of(video)
            record = ItemRecord(file, picture_notes(video, height=self._options.height, width=self._options.width))
            with ExitStack() as stack:
                track = self._sound(video, stack)
                for frame in iter_frames(video, height=self._options.height, width=self._options.width, fps=resampled):
                    rest.append(frame)
                    if len(rest) < length:
                        continue
                    if held is not None and not self._parts.holds(_clip_id(item, count - 1)):
                        yield _Pending(_clip_id(item, count - 1), item, held, fps, record, {})
                    sound = None if track is None else track.read(count * length / fps, length / fps)
                    held, rest, count = _Clip(np.stack(rest), sound), [], count + 1
                    if self._options.clips == "first":
                        break
        except DataError as error:
            problem = f"{'partly ' if count else ''}unreadable: {error.problems[0].found}"
        if held is None:
            self._report(item, problem or self._too_short(video, len(rest), fps))
            return
        self._report(item, problem)
        used_up = VideoRecord(count, len(rest), problem)
        if not self._parts.holds(_clip_id(item, count - 1)):
            yield _Pending(_clip_id(item, count - 1), item, held, fps, record, {item.id: used_up})

    def _too_short(self, video: Path, frames: int, fps: float) -> str:
        """What a video of so many frames, at the rate of the clips, lacks, and what would take it."""
        needed = self._options.num_frames
        lacks, own = f"too short: {frames} frames, but a clip needs {needed}", probe(video)
        is_image = video.suffix.lower() in IMAGE_SUFFIXES
        if is_image or self._options.fps_policy == "keep" or abs(own.fps - fps) < 0.01 * fps:
            return f"{lacks} (--num-frames)"
        keep = "--fps-policy keep takes it as it is, or " if own.frames >= needed else ""
        return f"{lacks}: its {own.frames} frames at {own.fps:g} fps were resampled to {fps:g} fps; {keep}lower --num-frames"

    def _sound(self, video: Path, stack: ExitStack) -> SoundTrack | None:
        """The sound of a video, when it has any and the family makes some; closed with `stack`."""
        if not isinstance(self._encoder, AudioEncoder) or not probe(video).has_audio:
            return None
        return stack.enter_context(SoundTrack(video, self._encoder.audio_sample_rate))

    def _fps(self, video: Path) -> float:
        if self._options.fps_policy == "resample":
            return self._encoder.geometry.fps if self._options.fps is None else self._options.fps
        fps = probe(video).fps
        if not fps:
            raise DataError(Problem("the file does not say its frame rate", str(video)))
        return fps


def _clip_id(item: SourceItem, clip: int) -> str:
    return f"{item.id}#{clip:04d}"


def _batched(pending: Iterator[_Pending], size: int) -> Iterator[list[_Pending]]:
    batch: list[_Pending] = []
    for one in pending:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_options(options: PreprocessOptions) -> None:
    counts = {"samples_per_file": options.samples_per_file, "batch_size": options.batch_size}
    problems = [Problem(f"{name} is {value}", allowed="1 or more") for name, value in counts.items() if value < 1]
    choices = {"fps_policy": (options.fps_policy, ("resample", "keep")), "clips": (options.clips, ("first", "all"))}
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            problems.append(Problem(f"{name} is {value!r}", allowed=", ".join(allowed)))
    if options.fps is not None and (options.fps_policy == "keep" or not 0 < options.fps <= 1000):
        found = f"fps is {options.fps:g} with fps_policy {options.fps_policy}"
        problems.append(Problem(found, allowed='a number above 0 up to 1000 with "resample", no fps with "keep"'))
    if problems:
        raise DataError(problems)


def _check_encoded(encoder: LatentEncoder, clips: Sequence[Mapping[str, Tensor]]) -> None:
    """A family's encoder gives the latents, and nothing that is made elsewhere."""
    for tensors in clips:
        taken = [name for name in ("text_embedding", "audio_latent") if name in tensors]
        if "vae_latent" not in tensors or taken:
            found = f"{type(encoder).__name__}.encode_videos gives {', '.join(tensors) or 'nothing'} for a clip"
            allowed = (
                "vae_latent, and others beside it; not text_embedding and audio_latent, which have methods of their own"
            )
            raise DataError(Problem(found, allowed=allowed, fix="report it to the family's author"))


def _normalised(description: Mapping[str, str]) -> dict[str, bool]:
    of_all = description.get("latents_normalised")
    said = [key.removesuffix("_normalised") for key in description if key.endswith("_normalised")]
    names = (*LATENTS, *(name for name in said if name not in (*LATENTS, "latents")))
    return {name: description.get(f"{name}_normalised", of_all) == "true" for name in names}


def _settings(encoder: LatentEncoder, options: PreprocessOptions, source: Source) -> dict[str, Any]:
    """What must be equal for samples to share a folder."""
    settings: dict[str, Any] = {"encoder": encoder.describe(), "kind": "video" if source.has_videos else "text"}
    if source.has_videos:
        fps = None if options.fps_policy == "keep" else options.fps or encoder.geometry.fps
        settings.update(height=options.height, width=options.width, num_frames=options.num_frames)
        settings.update(fps_policy=options.fps_policy, fps=fps, clips=options.clips)
        if isinstance(encoder, AudioEncoder):
            settings.update(audio_sample_rate=encoder.audio_sample_rate)
    return settings
