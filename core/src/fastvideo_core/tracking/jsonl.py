"""metrics.jsonl: one JSON object per logged step, whole at every moment."""

import itertools
import json
import logging
import math
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from fastvideo_core.contracts.tracker import Tracker

logger = logging.getLogger(__name__)


def json_line(record: Mapping[str, object]) -> str:
    """One JSON object on a line. JSON has no nan and no infinity: they are the texts "nan", "inf" and "-inf", which
    `float()` reads back."""
    odd = {name: str(value) for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)}
    return json.dumps({**record, **odd}, allow_nan=False) + "\n"


class JsonlTracker(Tracker):
    """Appends `{"step": 3, "loss": 0.5, ...}` per call of `log`, handed to the system line by line.

    Of a file that is there already, a last line that a killed run left half-written is cut off, the rest is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with _open(path, "rb+") as file:
                file.truncate(file.readall().rfind(b"\n") + 1)
        self._file = _open(self.path, "ab")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._append(json_line({"step": step} | {**metrics, "step": step}).encode())

    def resume_after(self, step: int) -> None:
        """Drops, atomically, the lines of steps after `step`, which the run is about to write again.

        Where nothing would be left, an earlier run has been here: its file is kept as `metrics.1.jsonl` (2, 3, ...).
        """
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _logged_by(line, step, self.path)]
        if len(kept) == len(lines):
            return
        self._file.close()
        if kept:
            aside = self.path.with_name(f".{self.path.name}.tmp")
            aside.unlink(missing_ok=True)
            with aside.open("xb") as file:
                file.writelines(kept)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self.path)
        else:
            names = (self.path.with_name(f"{self.path.stem}.{n}{self.path.suffix}") for n in itertools.count(1))
            earlier = next(name for name in names if not name.exists())
            os.rename(self.path, earlier)
            logger.warning("the metrics of an earlier run in this folder are kept as %s", earlier)
        self._file = _open(self.path, "ab")

    def _append(self, line: bytes) -> None:
        """The whole line, or nothing of it: a disk that gets full takes a part before it refuses."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
        except BaseException:
            os.truncate(self._file.fileno(), size)
            raise

    def finish(self) -> None:
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def _open(path: Path, mode: str) -> FileIO:
    """Not through a link, which would lead the lines elsewhere."""
    return FileIO(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def _logged_by(line: bytes, step: int, path: Path) -> bool:
    try:
        record: dict[str, Any] = json.loads(line)
        return int(record["step"]) <= step
    except (ValueError, TypeError, KeyError):
        logger.warning("%s: a line that is not a step's JSON object is dropped: %r", path, line[:80])
        return False
