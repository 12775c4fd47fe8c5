"""From raw videos and captions to a parquet data set: resumable, atomic, and with an account of everything skipped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_core.launch.stdio import say
from fastvideo_data.encoder import AudioEncoder, LatentEncoder
from fastvideo_data.images import is_image
from fastvideo_data.preprocessing.account import Noted, PreprocessReport, Skipped
from fastvideo_data.preprocessing.buckets import bucket_name
from fastvideo_data.preprocessing.clips import Clip, PreprocessOptions, VideoClips
from fastvideo_data.preprocessing.encoded_captions import EncodedCaption, encode_captions
from fastvideo_data.preprocessing.file_state import FileState
from fastvideo_data.preprocessing.masks import LOSS_MASK, is_black, loss_mask
from fastvideo_data.preprocessing.output_folder import check_data_output
from fastvideo_data.preprocessing.part_files import ItemRecord, PartFiles, VideoRecord, clip_id
from fastvideo_data.preprocessing.progress import progress
from fastvideo_data.preprocessing.raw_videos import Source, SourceItem, discover
from fastvideo_data.preprocessing.renewal import renew
from fastvideo_data.preprocessing.share_account import forget_accounts
from fastvideo_data.schema import (
    LATENTS,
    SOUND_METADATA,
    TEXT_METADATA,
    VIDEO_METADATA,
    arrow_schema,
    encode_tensor,
)
from fastvideo_data.video_files import picture_notes

_WAITING_BYTES = 1 << 30


def preprocess(
    encoder: LatentEncoder, source: str | Path, output_dir: str | Path, options: PreprocessOptions
) -> PreprocessReport:
    """Encode every video and caption (or every prompt) of `source` into parquet files in `output_dir`.

    May be called again after a kill, or with more clips, with the same options: what is there already is kept, and follows
    its source (`renew`). Prints a progress bar and a summary, and writes report.json.

    With an `AudioEncoder`, clips of videos with an audio track go with their sound into the sub-folder WITH_SOUND, those of
    other videos into WITHOUT_SOUND. With buckets there is a folder for each, named height x width x frames, in these.

    Raises:
        DataError: sizes that the model cannot encode, a source that cannot be understood, an output folder that holds
            something else or more than the source lists, or not one usable sample.
        ConfigError: the output folder cannot be written.
        DataWriteError: the disk is full, or refuses; what is in the data set is whole, and a further call goes on.
    """
    started = time.monotonic()
    found = find_source(source, output_dir, options)
    parts = open_parts(encoder, found, output_dir, options)
    forget_accounts(parts.path)
    changed = renew(parts, found, encoder, prune=options.prune)
    resumed = parts.samples
    skipped = encode_items(encoder, found, found.items, parts, options)
    return tell(found, parts, skipped=skipped, changed=changed, resumed=resumed, seconds=time.monotonic() - started)


def find_source(source: str | Path, output_dir: str | Path, options: PreprocessOptions) -> Source:
    """What a source holds, which the output folder must lie apart from; see `preprocess`."""
    check_data_output(output_dir, source)
    found = discover(source, images=options.takes_images)
    check_data_output(output_dir, *found.folders)
    return found


def open_parts(
    encoder: LatentEncoder, found: Source, output_dir: str | Path, options: PreprocessOptions, *, share: str = ""
) -> PartFiles:
    """The part files that the samples of a source go into, after the options were checked; see `preprocess`.

    Args:
        share: name of one process's share, whose files others must not take for their own.
    """
    if found.has_videos and options.buckets is not None:
        options.buckets.check(encoder.geometry)
    elif found.has_videos:
        encoder.geometry.check(height=options.height, width=options.width, num_frames=options.num_frames)
    _check_options(options)
    return PartFiles(
        Path(output_dir),
        settings=_settings(encoder, options, found),
        normalised=_normalised(encoder.describe()),
        samples_per_file=options.samples_per_file,
        sound=found.has_videos and isinstance(encoder, AudioEncoder),
        share=share,
    )


def encode_items(
    encoder: LatentEncoder,
    found: Source,
    items: Sequence[SourceItem],
    parts: PartFiles,
    options: PreprocessOptions,
    *,
    shows: bool = True,
) -> list[Skipped]:
    """Encodes what is not in the part files yet of some of a source's items; what of it became no sample.

    Args:
        shows: whether to show the progress.
    """
    run = _Run(encoder, options, parts, masks=found.has_masks)
    shown = progress(items, "video" if found.has_videos else "prompt") if shows else iter(items)
    for pending in _batched(run.wanted(shown), options.batch_size):
        run.encode(pending)
    parts.flush()
    return run.skipped


def tell(
    found: Source,
    parts: PartFiles,
    *,
    skipped: Sequence[Skipped],
    changed: Sequence[Noted],
    resumed: int,
    seconds: float,
) -> PreprocessReport:
    """Writes and prints the report of a call.

    Args:
        skipped: items that became no sample; what discovery could not use comes before them.
        changed: what `renew` did.
        resumed: samples that were there before.
        seconds: that the call took.

    Raises:
        DataError: there is not one sample.
    """
    skipped = [*(Skipped(problem.item, problem.reason) for problem in found.problems), *skipped]
    notes = [Noted(item, note) for item, record in parts.items.items() for note in record.notes + record.text_notes]
    notes += [
        Noted(name, f"black mask: {video.masked_out} of {video.clips} clips train nothing, as no place of them counts")
        for name, video in parts.videos.items()
        if video.masked_out
    ]
    report = PreprocessReport(
        output_dir=parts.path,
        samples=parts.samples,
        resumed=resumed,
        files=parts.files,
        skipped=tuple(skipped),
        unused_frames={name: video.unused_frames for name, video in parts.videos.items() if video.unused_frames},
        seconds=seconds,
        without_sound=parts.without_sound,
        noted=(*changed, *notes),
        buckets=parts.buckets,
    )
    report.write()
    say(report.summary(), flush=True)
    if not report.samples:
        shown = "; ".join(f"{skip.item}: {skip.reason}" for skip in skipped[:5]) or "the source is empty"
        fix = "see report.json for all of them"
        raise DataError(Problem(f"not one usable sample: {shown}", str(found.path), fix=fix))
    return report


@dataclass(frozen=True)
class _Pending:
    id: str
    item: SourceItem
    clip: Clip | None
    fps: float
    record: ItemRecord
    completes: dict[str, VideoRecord]


class _Run:
    """One pass over a source: cuts clips, encodes them, hands rows to the parts folder."""

    def __init__(self, encoder: LatentEncoder, options: PreprocessOptions, parts: PartFiles, *, masks: bool) -> None:
        self._masks = masks
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
            elif (record := self._parts.used_up(item.id)) is not None:
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
            if self._masks and one.clip is not None:
                tensors = {**tensors, LOSS_MASK: loss_mask(one.clip.mask, tensors["vae_latent"])}
            named = {**tensors, "text_embedding": text.embedding}
            sound = one.clip is not None and one.clip.sound is not None
            row: dict[str, Any] = self._metadata(one, tensors)
            for name, tensor in named.items():
                row.update(encode_tensor(name, tensor))
            metadata = SOUND_METADATA if sound else VIDEO_METADATA if clips else TEXT_METADATA
            record = replace(one.record, text_notes=text.notes)
            schema = arrow_schema(tuple(named), metadata)
            bucket = ""
            if one.clip is not None and self._options.buckets is not None:
                frames, height, width, _ = one.clip.frames.shape
                bucket = bucket_name(height, width, frames)
            folder = self._parts.folder(sound=sound, bucket=bucket)
            self._parts.add(row, schema, folder=folder, item=one.item.id, record=record, videos=one.completes)

    def _with_sound(self, clips: Sequence[Clip], latents: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
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
        if one.item.video is not None and one.clip is not None:
            frames, height, width, _ = one.clip.frames.shape
            kind = "image" if is_image(one.item.video) else "video"
            row.update(file_name=one.item.video.name, media_type=kind, width=width, height=height)
            seconds = frames / one.fps if one.fps else 0.0
            row.update(num_frames=tensors["vae_latent"].shape[1], fps=one.fps, duration_sec=seconds)
            if "audio_latent" in tensors and isinstance(self._encoder, AudioEncoder):
                row.update(audio_sample_rate=self._encoder.audio_sample_rate)
        return row

    def _report(self, item: SourceItem, problem: str) -> None:
        if problem:
            self.skipped.append(Skipped(item.id, problem))

    def _clips(self, item: SourceItem, video: Path) -> Iterator[_Pending]:
        """The clips of one video that are not there yet; the last one completes the video."""
        held: _Pending | None = None  # only the end of the video tells which clip is the last
        count = masked_out = 0
        problem = ""
        clips: VideoClips | None = None
        try:
            clips = VideoClips(video, self._encoder, self._options, item.mask)
            with foreign_file(video, "video"):
                file = FileState.of(video)
                mask = None if item.mask is None else FileState.of(item.mask)
            record = ItemRecord(file, picture_notes(video, height=clips.height, width=clips.width), mask=mask)
            for clip in clips:
                if held is not None and not self._parts.holds(held.id):
                    yield held
                held = _Pending(clip_id(item.id, count), item, clip, clips.fps, record, {})
                count += 1
                masked_out += is_black(clip.mask)
        except DataError as error:
            problem = f"{'partly ' if count else ''}unreadable: {error.problems[0].found}"
        if held is None or clips is None:
            self._report(item, problem or ("" if clips is None else clips.too_short()))
            return
        self._report(item, problem)
        if not self._parts.holds(held.id):
            yield replace(held, completes={item.id: VideoRecord(count, clips.unused, problem, masked_out)})


def _batched(pending: Iterator[_Pending], size: int) -> Iterator[list[_Pending]]:
    """Batches of clips of one size each; those that wait for others of their size take up no more than _WAITING_BYTES."""
    waiting: dict[tuple[int, ...], list[_Pending]] = {}
    for one in pending:
        shape = () if one.clip is None else one.clip.frames.shape
        waiting.setdefault(shape, []).append(one)
        if len(waiting[shape]) == size:
            yield waiting.pop(shape)
        while len(waiting) > 1 and sum(map(_bytes, waiting.values())) > _WAITING_BYTES:
            yield waiting.pop(max(waiting, key=lambda shape: _bytes(waiting[shape])))
    yield from waiting.values()


def _bytes(batch: Sequence[_Pending]) -> int:
    return sum(one.clip.frames.nbytes for one in batch if one.clip is not None)


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
        taken = [name for name in ("text_embedding", "audio_latent", LOSS_MASK) if name in tensors]
        if "vae_latent" not in tensors or taken:
            found = f"{type(encoder).__name__}.encode_videos gives {', '.join(tensors) or 'nothing'} for a clip"
            allowed = (
                "vae_latent, and others beside it; not text_embedding and audio_latent, which have methods of their own, "
                "nor loss_mask"
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
        if options.buckets is None:
            settings.update(height=options.height, width=options.width, num_frames=options.num_frames)
        else:
            settings.update(buckets=asdict(options.buckets))
        settings.update(fps_policy=options.fps_policy, fps=fps, clips=options.clips)
        if isinstance(encoder, AudioEncoder):
            settings.update(audio_sample_rate=encoder.audio_sample_rate)
        if source.has_masks:
            settings.update(masks=True)
    return settings
