"""What `preprocess` tells about its work: a report that accounts for every sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fastvideo_data.preprocessing.part_files import WITHOUT_SOUND, writing
from fastvideo_data.schema import published
from fastvideo_data.text_files import shown

_SHOWN_KINDS = 10


@dataclass(frozen=True)
class Skipped:
    """Something that did not become a sample, and why: "kind" or "kind: details"."""

    item: str
    reason: str


@dataclass(frozen=True)
class Noted:
    """Something worth knowing of what did become a sample: "kind" or "kind: details"."""

    item: str
    note: str


@dataclass(frozen=True)
class PreprocessReport:
    """What `preprocess` did; also written as report.json.

    Args:
        output_dir: the data set.
        samples: samples in the data set now.
        resumed: how many of them were there before this call.
        files: parquet files in the data set.
        skipped: what did not become a sample, with the reason.
        unused_frames: for each video with frames after its last clip, how many (after resampling; clips "all" only).
        seconds: duration of this call.
        without_sound: of a family that makes sound, the videos that have none; their clips are in WITHOUT_SOUND.
        noted: what samples lose of their clips and captions, and what this call changed of those that were there.
        buckets: samples of each size, by "height x width x frames"; none where all clips have one.
    """

    output_dir: Path
    samples: int
    resumed: int
    files: int
    skipped: tuple[Skipped, ...]
    unused_frames: dict[str, int]
    seconds: float
    without_sound: tuple[str, ...] = ()
    noted: tuple[Noted, ...] = ()
    buckets: dict[str, int] = field(default_factory=dict)

    def write(self) -> None:
        """Writes report.json into the data set, complete or not at all.

        Raises:
            DataWriteError: the system refuses.
        """
        content = {**asdict(self), "output_dir": str(self.output_dir)}
        content["reasons"] = dict(Counter(skip.reason for skip in self.skipped))
        content["notes"] = dict(Counter(_kind(noted.note) for noted in self.noted))
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        with writing(self.output_dir, self.samples, self.files):
            self.output_dir.mkdir(parents=True, exist_ok=True)
            with published(self.output_dir / "report.json") as aside:
                aside.write_text(text, encoding="utf-8")

    def summary(self) -> str:
        """A few lines for the terminal: what was done, and what was noted and skipped, by kind."""
        before = f" ({self.resumed} were there before)" if self.resumed else ""
        lines = [f"{self.samples} samples in {self.files} files in {self.output_dir}{before}, {self.seconds:.1f} s"]
        if self.buckets:
            lines.append(
                "by height x width x frames: " + ", ".join(f"{n} x {name}" for name, n in self.buckets.items())
            )
        if self.unused_frames:
            total = sum(self.unused_frames.values())
            lines.append(f"unused: {total} frames after the last whole clip of {len(self.unused_frames)} videos")
        if self.without_sound:
            where = self.output_dir / WITHOUT_SOUND
            lines.append(f"without sound: {len(self.without_sound)} x, e.g. {self.without_sound[0]}; clips in {where}")
        if self.noted:
            lines += ["noted:", *_by_kind((noted.item, noted.note) for noted in self.noted)]
        lines.append(f"skipped: {len(self.skipped)}" + ("" if self.skipped else " (nothing)"))
        return "\n".join([*lines, *_by_kind((skip.item, skip.reason) for skip in self.skipped)])


def _by_kind(told: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each of the most frequent kinds: how often, and the first example."""
    kinds: dict[str, list[str]] = {}
    for item, text in told:
        kinds.setdefault(_kind(text), []).append(item)
    most = sorted(kinds.items(), key=lambda entry: -len(entry[1]))[:_SHOWN_KINDS]
    return [f"  {len(items)} x {kind}, e.g. {shown(items[0])}" for kind, items in most]


def _kind(text: str) -> str:
    return text.split(":")[0]
