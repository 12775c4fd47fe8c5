"""The output folder of preprocessing: complete part files, and what they already hold."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastvideo_core.data.schema import SETTINGS_KEY, aside_path, key_value_metadata, publish, write_part
from fastvideo_core.errors import DataError, Problem

_VIDEOS_KEY = b"fastvideo.videos"
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


class PartsFolder:
    """Part files with equal settings in one folder: knows what is in them, and adds new ones.

    Args:
        path: the folder; made when it is not there.
        settings: what must be equal for samples to share the folder; stored in every file.
        normalised: whether the latents are normalised; stored in every file.
        samples_per_file: a part file is written when so many samples have come together.

    Raises:
        DataError: the folder holds parquet files of other settings, or a damaged one.
    """

    def __init__(self, path: Path, *, settings: Mapping[str, Any], normalised: bool, samples_per_file: int) -> None:
        self.path = path
        self.videos: dict[str, VideoRecord] = {}
        self._settings = json.loads(json.dumps(settings))
        self._normalised = normalised
        self._samples_per_file = samples_per_file
        self._captions: dict[str, str] = {}
        self._rows: list[dict[str, Any]] = []
        self._row_videos: dict[str, VideoRecord] = {}
        self._schema: pa.Schema | None = None
        path.mkdir(parents=True, exist_ok=True)
        for leftover in path.glob(".*.partial"):
            leftover.unlink()
        self._names = {file.name for file in path.glob("*.parquet")}
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

    def add(self, row: dict[str, Any], schema: pa.Schema, videos: Mapping[str, VideoRecord]) -> None:
        """Add one sample, and the videos that it completes; writes a part file when enough have come together.

        Raises:
            DataError: the sample has other tensors than those in the folder.
        """
        if self._schema is None:
            self._schema = schema
        if not schema.equals(self._schema):
            found = f"sample {row['id']!r} has the columns {schema.names}, but others have {self._schema.names}"
            raise DataError(Problem(found, str(self.path), fix="the encoder must give all samples the same tensors"))
        self._rows.append(row)
        self._row_videos.update(videos)
        if len(self._rows) >= self._samples_per_file:
            self.flush()

    def flush(self) -> None:
        """Write the samples that are waiting, if any, as one part file."""
        if not self._rows or self._schema is None:
            return
        name = next(name for i in itertools.count() if (name := f"part-{i:06d}.parquet") not in self._names)
        records = {video: asdict(record) for video, record in self._row_videos.items()}
        metadata = key_value_metadata(normalised=self._normalised, settings=self._settings, videos=records)
        write_part(self.path / name, self._rows, self._schema, metadata)
        self._names.add(name)
        self._captions.update((row["id"], row["caption"]) for row in self._rows)
        self.videos.update(self._row_videos)
        self._rows, self._row_videos = [], {}

    def write_text(self, name: str, text: str) -> None:
        """Write a text file beside the parts; complete or absent."""
        path = self.path / name
        aside_path(path).write_text(text, encoding="utf-8")
        publish(aside_path(path), path)

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

    def _check_settings(self, path: Path, stored: dict[str, Any]) -> None:
        changes = [
            f"{key} was {stored.get(key)!r}, is {self._settings.get(key)!r}"
            for key in sorted(stored.keys() | self._settings.keys())
            if stored.get(key) != self._settings.get(key)
        ]
        if changes:
            found = f"was written with other settings: {'; '.join(changes)}"
            raise DataError(Problem(found, str(path), fix=_OTHER_FOLDER))
