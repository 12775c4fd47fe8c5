"""The output folders of preprocessing: complete part files, and what they already hold."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fastvideo_core.errors import DataError, FastVideoError, Problem, foreign_file
from fastvideo_data.preprocessing.buckets import is_bucket_name
from fastvideo_data.preprocessing.encoded_captions import EncodedCaption
from fastvideo_data.preprocessing.file_state import FileState
from fastvideo_data.preprocessing.progress import progress
from fastvideo_data.schema import SETTINGS_KEY, encode_tensor, key_value_metadata, write_part

WITH_SOUND, WITHOUT_SOUND = "with_sound", "without_sound"
"""Sub-folders of the data set of a family that makes sound: the loader reads samples of one kind."""

_VIDEOS_KEY = b"fastvideo.videos"
_ITEMS_KEY = b"fastvideo.items"
_OTHER_FOLDER = "use another output folder, or delete this one"


@dataclass(frozen=True)
class VideoRecord:
    """How a video was used up; stored in the part file of its last clip.

    Args:
        clips: clips that were cut from it.
        unused_frames: frames after the last clip.
        problem: why reading stopped early; empty when it did not.
        masked_out: clips whose mask is black throughout.
    """

    clips: int
    unused_frames: int
    problem: str
    masked_out: int = 0


@dataclass(frozen=True)
class ItemRecord:
    """What is known of a source's item; stored in every part file that holds a sample of it.

    Args:
        file: its clip as it was encoded; None for a prompt alone, and where an earlier version encoded it.
        notes: what its samples lose of the picture or show otherwise, "kind: details" each.
        text_notes: what they lose of the caption, likewise.
        mask: its mask as it was used; None where it has none.
    """

    file: FileState | None = None
    notes: tuple[str, ...] = ()
    text_notes: tuple[str, ...] = ()
    mask: FileState | None = None

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> ItemRecord:
        """As it is stored."""
        file, mask = (None if (state := record.get(name)) is None else FileState(**state) for name in ("file", "mask"))
        return cls(file, tuple(record["notes"]), tuple(record["text_notes"]), mask)


def clip_id(video: str, clip: int) -> str:
    """The id of a clip of a video, which is counted from 0."""
    return f"{video}#{clip:04d}"


class _Sample(NamedTuple):
    item: str
    caption: str
    part: Path


class DataWriteError(FastVideoError):
    """The data set could not be written any further; what it holds is whole."""

    title = "the data set could not be written"


@contextmanager
def writing(path: Path, samples: int, files: int) -> Iterator[None]:
    """Says what is whole and how to go on when the system refuses to write into a data set.

    Raises:
        DataWriteError: on OSError.
    """
    try:
        yield
    except OSError as error:
        found = f"cannot be written: {error.strerror or error}; {samples} samples in {files} files are whole"
        fix = "free space or make the folder writable, and give the same command again: it goes on from there"
        raise DataWriteError(Problem(found, str(path), fix=fix)) from error


@dataclass
class _Waiting:
    """The samples that become the next part file of a folder, what they complete, and the columns of all in that folder."""

    schema: pa.Schema | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    videos: dict[str, VideoRecord] = field(default_factory=dict)
    items: dict[str, ItemRecord] = field(default_factory=dict)


class PartFiles:
    """The part files of a data set, with equal settings: knows what is in them, and adds new ones.

    They lie in one folder; of a family that makes sound, in one for clips with sound and one for those without; with buckets, in
    folders of theirs in these.

    Args:
        path: the data set; made when there is something to write.
        settings: what must be equal for samples to share the data set; stored in every file.
        normalised: for each tensor of latents, whether they are normalised; stored in every file.
        samples_per_file: a part file is written when so many samples have come together.
        sound: whether samples with sound and without are to be told apart.
        share: name of one process's share: its files are named after it, and nobody else's are touched.

    Attributes:
        videos: what is known of the videos that are used up.
        items: what is known of the items whose samples are in the files.

    Raises:
        DataError: there are parquet files of other settings, a damaged one, or samples of videos that were put there without
            telling those with sound apart.
    """

    def __init__(
        self,
        path: Path,
        *,
        settings: Mapping[str, Any],
        normalised: Mapping[str, bool],
        samples_per_file: int,
        sound: bool,
        share: str = "",
    ) -> None:
        if sound and any(path.glob("[!.]*.parquet")):
            found = f"holds samples made without regard to sound, beside which {WITH_SOUND}/ and {WITHOUT_SOUND}/ would come"
            raise DataError(Problem(found, str(path), fix=_OTHER_FOLDER))
        self.path = path
        self.videos: dict[str, VideoRecord] = {}
        self.items: dict[str, ItemRecord] = {}
        self._settings = json.loads(json.dumps(settings))
        self._normalised = normalised
        self._samples_per_file = samples_per_file
        self._samples: dict[str, _Sample] = {}
        self._parts: set[Path] = set()
        self._prefix = f"part-{share}-" if share else "part-"
        kinds = [path / WITH_SOUND, path / WITHOUT_SOUND] if sound else [path]
        self._waiting = {folder: _Waiting() for folder in kinds}
        buckets = [folder for kind in kinds for folder in sorted(kind.glob("*")) if is_bucket_name(folder.name)]
        for folder in [*kinds, *buckets]:
            for leftover in folder.glob(f".{self._prefix if share else ''}*.partial"):
                leftover.unlink()
            for part in sorted(folder.glob("[!.]*.parquet")):
                self._parts.add(part)
                self._take_stock(part)

    @property
    def samples(self) -> int:
        """Samples in all files."""
        return len(self._samples)

    @property
    def files(self) -> int:
        """Number of part files."""
        return len(self._parts)

    @property
    def without_sound(self) -> tuple[str, ...]:
        """The used-up videos whose clips have no sound; none where the difference is not made."""
        silent = {s.item for s in self._samples.values() if s.part.is_relative_to(self.path / WITHOUT_SOUND)}
        return tuple(sorted(silent & self.videos.keys()))

    @property
    def buckets(self) -> dict[str, int]:
        """How many samples each bucket has; none where all clips have one size."""
        names = Counter(sample.part.parent.name for sample in self._samples.values())
        return {name: names[name] for name in sorted(names) if is_bucket_name(name)}

    def used_up(self, video: str) -> VideoRecord | None:
        """What is known of a video all of whose clips are in the files; None for others.

        With buckets its last clip may be written before another one.
        """
        record = self.videos.get(video)
        whole = record is not None and all(self.holds(clip_id(video, clip)) for clip in range(record.clips))
        return record if whole else None

    def folder(self, *, sound: bool, bucket: str) -> Path:
        """Where samples go.

        Args:
            sound: whether they have sound.
            bucket: its name; empty where all clips have one size.
        """
        kind = self.path if self.path in self._waiting else self.path / (WITH_SOUND if sound else WITHOUT_SOUND)
        return kind / bucket

    def holds(self, sample: str) -> bool:
        """Whether a sample with this id is in the files."""
        return sample in self._samples

    def captions(self) -> Iterator[tuple[str, str]]:
        """Item and caption of every sample."""
        return ((sample.item, sample.caption) for sample in self._samples.values())

    def take_out(self, items: Collection[str]) -> None:
        """Remove the samples of these items; each file is whole at any time, with all of them or with none.

        Raises:
            DataWriteError: the system refuses.
        """
        self._rewrite(items, lambda rows: [row for row in rows if self._item(row) not in items])
        for item in items:
            self.items.pop(item, None)
            self.videos.pop(item, None)

    def set_captions(
        self, captions: Mapping[str, str], encode: Callable[[Sequence[str]], Mapping[str, EncodedCaption]]
    ) -> None:
        """Give the samples of these items another caption, and its embedding; files likewise.

        Args:
            captions: by item.
            encode: encodes captions.

        Raises:
            DataWriteError: the system refuses.
        """

        def changed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            texts = encode([captions[item] for row in rows if (item := self._item(row)) in captions])
            for row in rows:
                if (item := self._item(row)) in captions:
                    row.update(encode_tensor("text_embedding", texts[captions[item]].embedding))
                    row["caption"] = captions[item]
                    self.items[item] = replace(self.items[item], text_notes=texts[captions[item]].notes)
            return rows

        self._rewrite(captions.keys(), changed)

    def _rewrite(self, items: Collection[str], change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Change the rows of the files that hold samples of these items, one file after the other."""
        for part in progress(sorted({s.part for s in self._samples.values() if s.item in items}), "file"):
            with foreign_file(part, "parquet file"), pq.ParquetFile(part) as handle:
                schema, metadata = handle.schema_arrow.remove_metadata(), handle.schema_arrow.metadata
                rows = handle.read().to_pylist()
            before = [row["id"] for row in rows]
            rows = change(rows)
            kept = {self._item(row) for row in rows}
            videos = {video: self.videos[video] for video in json.loads(metadata[_VIDEOS_KEY]) if video in kept}
            records = {item: self.items[item] for item in sorted(kept)}
            with writing(part.parent, self.samples, self.files):
                if rows:
                    write_part(part, rows, schema, self._metadata(videos, records))
                else:
                    part.unlink()
                    self._parts.remove(part)
            for sample in before:
                del self._samples[sample]
            self._hold(rows, part)

    def _item(self, row: Mapping[str, Any]) -> str:
        sample: str = row["id"]
        return sample.rpartition("#")[0] if self._settings["kind"] == "video" else sample

    def _hold(self, rows: Iterable[Mapping[str, Any]], part: Path) -> None:
        self._samples.update((row["id"], _Sample(self._item(row), row["caption"], part)) for row in rows)

    def add(
        self,
        row: dict[str, Any],
        schema: pa.Schema,
        *,
        folder: Path,
        item: str,
        record: ItemRecord,
        videos: Mapping[str, VideoRecord],
    ) -> None:
        """Add one sample of an item, and the videos that it completes; writes a part file when enough have come together.

        Args:
            folder: as `folder` says it.

        Raises:
            DataWriteError: the part file cannot be written.
            DataError: the sample has other tensors than those in its folder.
        """
        waiting = self._waiting.setdefault(folder, _Waiting())
        waiting.schema = waiting.schema or schema
        if not schema.equals(waiting.schema):
            found = f"sample {row['id']!r} has the columns {schema.names}, but others have {waiting.schema.names}"
            raise DataError(Problem(found, str(folder), fix="the encoder must give all samples the same tensors"))
        waiting.rows.append(row)
        waiting.items[item] = record
        waiting.videos.update(videos)
        if len(waiting.rows) >= self._samples_per_file:
            self._write(folder)

    def flush(self) -> None:
        """Write all samples that are waiting; each part file complete or not at all.

        Raises:
            DataWriteError: the system refuses.
        """
        for folder, waiting in self._waiting.items():
            if waiting.rows:
                self._write(folder)

    def _write(self, folder: Path) -> None:
        waiting = self._waiting[folder]
        part = next(
            part for i in itertools.count() if (part := folder / f"{self._prefix}{i:06d}.parquet") not in self._parts
        )
        with writing(folder, self.samples, self.files):
            folder.mkdir(parents=True, exist_ok=True)
            write_part(part, waiting.rows, waiting.schema, self._metadata(waiting.videos, waiting.items))
        self._parts.add(part)
        self._hold(waiting.rows, part)
        self.videos.update(waiting.videos)
        self.items.update(waiting.items)
        self._waiting[folder] = _Waiting(waiting.schema)

    def _metadata(self, videos: Mapping[str, VideoRecord], items: Mapping[str, ItemRecord]) -> dict[bytes, bytes]:
        return key_value_metadata(
            normalised=self._normalised,
            settings=self._settings,
            videos={video: asdict(record) for video, record in videos.items()},
            items={item: asdict(record) for item, record in items.items()},
        )

    def _take_stock(self, path: Path) -> None:
        fix = "delete the file and start again; its samples are then encoded anew"
        with foreign_file(path, "parquet file", fix=fix):
            with pq.ParquetFile(path) as handle:
                metadata = handle.schema_arrow.metadata or {}
                if SETTINGS_KEY not in metadata or _VIDEOS_KEY not in metadata:
                    fix = "use another output folder"
                    raise DataError(Problem("was not written by preprocess", str(path), fix=fix))
                self._check_settings(path, json.loads(metadata[SETTINGS_KEY]))
                self._waiting.setdefault(path.parent, _Waiting()).schema = handle.schema_arrow.remove_metadata()
                table = handle.read(columns=["id", "caption"])
            rows = table.to_pylist()
            self._hold(rows, path)
            videos = json.loads(metadata[_VIDEOS_KEY])
            self.videos.update({video: VideoRecord(**record) for video, record in videos.items()})
            items = json.loads(metadata.get(_ITEMS_KEY, b"{}"))  # absent where an earlier version wrote the file
            self.items.update({item: ItemRecord.parse(record) for item, record in items.items()})
            for row in rows:
                self.items.setdefault(self._item(row), ItemRecord())

    def _check_settings(self, path: Path, stored: dict[str, Any]) -> None:
        changes = [
            f"{key} was {stored.get(key)!r}, is {self._settings.get(key)!r}"
            for key in sorted(stored.keys() | self._settings.keys())
            if stored.get(key) != self._settings.get(key)
        ]
        if changes:
            found = f"was written with other settings: {'; '.join(changes)}"
            raise DataError(Problem(found, str(path), fix=_OTHER_FOLDER))
