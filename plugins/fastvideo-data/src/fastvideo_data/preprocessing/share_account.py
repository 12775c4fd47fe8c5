"""What each of several processes did of one call of `preprocess`: kept in the data set until the report of all is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastvideo_core.errors import foreign_file
from fastvideo_data.preprocessing.account import Noted, Skipped
from fastvideo_data.schema import published

_FOLDER = ".shares"


@dataclass(frozen=True)
class Share:
    """The part of a source that one of `count` processes encodes, `index` from 0.

    The name of an item alone says whose it is: a source that grows while the processes run gives none twice.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """As files are named after it."""
        return f"{self.index:04d}"

    def takes(self, item: str) -> bool:
        """Whether the item with this id belongs to it."""
        number = int.from_bytes(hashlib.blake2b(item.encode(), digest_size=8).digest(), "big")
        return number % self.count == self.index


@dataclass(frozen=True)
class ShareAccount:
    """What the process of a share did.

    Args:
        finished: whether it came to its end.
        skipped: what of its share became no sample.
        changed: what it changed of samples that were there.
        resumed: samples of its share that were there before.
        seconds: that it took.
    """

    finished: bool = False
    skipped: tuple[Skipped, ...] = ()
    changed: tuple[Noted, ...] = ()
    resumed: int = 0
    seconds: float = 0.0

    def write(self, output_dir: Path, share: Share) -> None:
        """Puts it into the data set, in place of an earlier one; OSError where that is refused."""
        path = _path(output_dir, share)
        path.parent.mkdir(parents=True, exist_ok=True)
        with published(path) as aside:
            aside.write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, output_dir: Path, share: Share) -> ShareAccount:
        """As it was written last; an empty one where there is none."""
        path = _path(output_dir, share)
        if not path.is_file():
            return cls()
        with foreign_file(path, "account of a share", fix="delete it, and give the command of this share again"):
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            stored["skipped"] = tuple(Skipped(**one) for one in stored["skipped"])
            stored["changed"] = tuple(Noted(**one) for one in stored["changed"])
            return cls(**stored)


def accounts_of_all(output_dir: Path, count: int) -> list[ShareAccount]:
    """Those of all shares, in order."""
    return [ShareAccount.read(output_dir, Share(index, count)) for index in range(count)]


def forget_accounts(output_dir: Path) -> None:
    """Takes all accounts out of a data set."""
    shutil.rmtree(output_dir / _FOLDER, ignore_errors=True)


def unfinished(accounts: Iterable[ShareAccount]) -> int:
    """How many of these shares did not come to their end."""
    return sum(not account.finished for account in accounts)


def _path(output_dir: Path, share: Share) -> Path:
    return output_dir / _FOLDER / f"{share.index}-of-{share.count}.json"
