"""The output folders of preprocessing: complete part files, and what they already hold."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastvideo_core.data.schema import SETTINGS_KEY, key_value_metadata, write_part
from fastvideo_core.data.walk import is_hidden
from fastvideo_core.errors import DataError, Problem

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
    """

    clips: int
    unused_frames: int
    problem: str


@dataclass(frozen=True)
class ItemRecord:
    """What is known of a source's item; stored in every part file that holds a sample of it.

    Args:
        notes: what its samples lose of the picture or show otherwise, "kind: details" each.
        text_notes: what they lose of the caption, likewise.
    """

    notes: tuple[str, ...] = ()
    text_notes: tuple[str, ...] = ()


class PartsFolder:
    """Part files with equal settings in one folder: knows what is in them, and adds new ones.

    Args:
        path: the folder; made when there is something to write.
        settings: what must be equal for samples to share the folder; stored in every file.
        normalised: whether the latents are normalised; stored in every file.
        samples_per_file: a part file is written when so many samples have come together.

    Raises:
        DataError: the folder holds parquet files of other settings, or a damaged one.
    """

    def __init__(self, path: Path, *, settings: Mapping[str, Any], normalised: bool, samples_per_file: int) -> None:
        self.path = path
        self.videos: dict[str, VideoRecord] = {}
        self.items: dict[str, ItemRecord] = {}
        self._settings = json.loads(json.dumps(settings))
        self._normalised = normalised
        self._samples_per_file = samples_per_file
        self._captions: dict[str, str] = {}
        self._rows: list[dict[str, Any]] = []
        self._row_videos: dict[str, VideoRecord] = {}
        self._row_items: dict[str, ItemRecord] = {}
        self._schema: pa.Schema | None = None
        for leftover in path.glob(".*.partial"):
            leftover.unlink()
        self._names = {file.name for file in path.glob("*.parquet") if not is_hidden(file.name)}
        for name in sorted(self._names):
            self._take_stock(path / name)

    @property
    def samples(self) -> int:
        """Samples in the folder's files."""
        return len(self._captions)

    @property
    def files(self) -> int:
        """Number of part files."""
        return len(self._names)

    def holds(self, sample: str) -> bool:
        """Whether a sample with this id is in the folder's files."""
        return sample in self._captions

    def check_captions(self, captions: Mapping[str, str]) -> None:
        """Check that every stored sample still belongs to the source.

        Args:
            captions: caption by item id, all items of the source.

        Raises:
            DataError: a stored sample's item is not in the source any more, or has another caption now.
        """
        for sample, caption in self._captions.items():
            item = sample.rpartition("#")[0] if self._settings["kind"] == "video" else sample
            if item not in captions:
                found = f"the folder holds sample {sample!r}, which the source does not list"
                raise DataError(Problem(found, str(self.path), fix=_OTHER_FOLDER))
            if captions[item] != caption:
                found = f"sample {sample!r} was encoded with the caption {caption!r}, which is {captions[item]!r} now"
                raise DataError(Problem(found, str(self.path), fix=_OTHER_FOLDER))

    def add(
        self,
        row: dict[str, Any],
        schema: pa.Schema,
        *,
        item: str,
        record: ItemRecord,
        videos: Mapping[str, VideoRecord],
    ) -> None:
        """Add one sample of an item, and the videos that it completes; writes a part file when enough have come together.

        Raises:
            OSError: the part file cannot be written.
            DataError: the sample has other tensors than those in the folder.
        """
        if self._schema is None:
            self._schema = schema
        if not schema.equals(self._schema):
            found = f"sample {row['id']!r} has the columns {schema.names}, but others have {self._schema.names}"
            raise DataError(Problem(found, str(self.path), fix="the encoder must give all samples the same tensors"))
        self._rows.append(row)
        self._row_items[item] = record
        self._row_videos.update(videos)
        if len(self._rows) >= self._samples_per_file:
            self.flush()

    def flush(self) -> None:
        """Write the samples that are waiting, if any, as one part file; complete or not at all.

        Raises:
            OSError: the system refuses.
        """
        if not self._rows or self._schema is None:
            return
        name = next(name for i in itertools.count() if (name := f"part-{i:06d}.parquet") not in self._names)
        metadata = self._metadata(self._row_videos, self._row_items)
        self.path.mkdir(parents=True, exist_ok=True)
        write_part(self.path / name, self._rows, self._schema, metadata)
        self._names.add(name)
        self._captions.update((row["id"], row["caption"]) for row in self._rows)
        self.videos.update(self._row_videos)
        self.items.update(self._row_items)
        self._rows, self._row_videos, self._row_items = [], {}, {}

    def _metadata(self, videos: Mapping[str, VideoRecord], items: Mapping[str, ItemRecord]) -> dict[bytes, bytes]:
        return key_value_metadata(
            normalised=self._normalised,
            settings=self._settings,
            videos={video: asdict(record) for video, record in videos.items()},
            items={item: asdict(record) for item, record in items.items()},
        )

    def _take_stock(self, path: Path) -> None:
        try:
            with pq.ParquetFile(path) as handle:
                metadata = handle.schema_arrow.metadata or {}
                schema = handle.schema_arrow.remove_metadata()
                ours = SETTINGS_KEY in metadata and _VIDEOS_KEY in metadata
                table = handle.read(columns=["id", "caption"]) if ours else None
        except (pa.ArrowException, OSError) as error:
            fix = "delete the file and start again; its samples are then encoded anew"
            raise DataError(Problem(f"is damaged or no parquet file: {error}", str(path), fix=fix)) from error
        if table is None:
            raise DataError(Problem("was not written by preprocess", str(path), fix="use another output folder"))
        self._check_settings(path, json.loads(metadata[SETTINGS_KEY]))
        self._schema = schema
        self._captions.update(zip(table["id"].to_pylist(), table["caption"].to_pylist(), strict=True))
        records = json.loads(metadata[_VIDEOS_KEY])
        self.videos.update({video: VideoRecord(**record) for video, record in records.items()})
        items = json.loads(metadata.get(_ITEMS_KEY, b"{}"))  # absent where an earlier version wrote the file
        self.items.update(
            {item: ItemRecord(tuple(record["notes"]), tuple(record["text_notes"])) for item, record in items.items()}
        )

    def _check_settings(self, path: Path, stored: dict[str, Any]) -> None:
        changes = [
            f"{key} was {stored.get(key)!r}, is {self._settings.get(key)!r}"
            for key in sorted(stored.keys() | self._settings.keys())
            if stored.get(key) != self._settings.get(key)
        ]
        if changes:
            found = f"was written with other settings: {'; '.join(changes)}"
            raise DataError(Problem(found, str(path), fix=_OTHER_FOLDER))


class SampleFolders:
    """The part files of a data set: one folder, or one for clips with sound and one for those without.

    Args:
        path: the data set.
        settings: see `PartsFolder`.
        normalised: see `PartsFolder`.
        samples_per_file: see `PartsFolder`.
        sound: whether samples with sound and without are to be told apart.

    Raises:
        DataError: as `PartsFolder`, or samples of videos were put there without telling them apart.
    """

    def __init__(
        self, path: Path, *, settings: Mapping[str, Any], normalised: bool, samples_per_file: int, sound: bool
    ) -> None:
        if sound and any(not is_hidden(file.name) for file in path.glob("*.parquet")):
            found = f"holds samples made without regard to sound, beside which {WITH_SOUND}/ and {WITHOUT_SOUND}/ would come"
            raise DataError(Problem(found, str(path), fix=_OTHER_FOLDER))
        self.path = path
        self._folders = {
            name: PartsFolder(path / name, settings=settings, normalised=normalised, samples_per_file=samples_per_file)
            for name in ((WITH_SOUND, WITHOUT_SOUND) if sound else ("",))
        }

    @property
    def samples(self) -> int:
        """Samples in all files."""
        return sum(folder.samples for folder in self._folders.values())

    @property
    def files(self) -> int:
        """Number of part files."""
        return sum(folder.files for folder in self._folders.values())

    @property
    def videos(self) -> dict[str, VideoRecord]:
        """What is known of the videos that are used up."""
        return {name: video for folder in self._folders.values() for name, video in folder.videos.items()}

    @property
    def items(self) -> dict[str, ItemRecord]:
        """What is known of the items whose samples are in the files."""
        return {name: item for folder in self._folders.values() for name, item in folder.items.items()}

    @property
    def without_sound(self) -> tuple[str, ...]:
        """The used-up videos whose clips have no sound; none where the difference is not made."""
        return tuple(sorted(self._folders[WITHOUT_SOUND].videos)) if WITHOUT_SOUND in self._folders else ()

    def holds(self, sample: str) -> bool:
        """Whether a sample with this id is in the files."""
        return any(folder.holds(sample) for folder in self._folders.values())

    def record(self, video: str) -> VideoRecord | None:
        """How a video was used up; None while it is not."""
        records = (folder.videos.get(video) for folder in self._folders.values())
        return next((record for record in records if record is not None), None)

    def check_captions(self, captions: Mapping[str, str]) -> None:
        """As `PartsFolder.check_captions`."""
        for folder in self._folders.values():
            folder.check_captions(captions)

    def add(
        self,
        row: dict[str, Any],
        schema: pa.Schema,
        *,
        item: str,
        record: ItemRecord,
        videos: Mapping[str, VideoRecord],
        sound: bool,
    ) -> None:
        """Add one sample, with sound or without; otherwise as `PartsFolder.add`."""
        name = "" if "" in self._folders else WITH_SOUND if sound else WITHOUT_SOUND
        self._folders[name].add(row, schema, item=item, record=record, videos=videos)

    def flush(self) -> None:
        """Write all samples that are waiting."""
        for folder in self._folders.values():
            folder.flush()
