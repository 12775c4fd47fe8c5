"""Hundreds of damaged files of each kind: none may raise anything but an error of ours, hang, or run code.

More by hand: `FUZZ_COUNT=5000 FUZZ_FIRST=1000 pytest -s tests/fuzz` reads 5000 of each kind from seed 1000 on, and prints the
counts.
"""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from fastvideo_core.cli.main import main
from fastvideo_core.errors import UserError
from tests.families import ALL_KINDS
from tests.families import Kind as Family
from tests.fuzz.kinds import KINDS, Ground, Kind, pipeline_of

COUNT = int(os.environ.get("FUZZ_COUNT", "300"))
COMMANDS = int(os.environ.get("FUZZ_COMMANDS", "10"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
SECONDS = 60  # for one file that is read in milliseconds


class Hanging(BaseException):
    """Reading takes too long; no Exception, so that no guard takes it for a damaged file."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hanging

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def damaged(kind: Kind, name: str, numbers: range, work: Path) -> Iterator[tuple[int, str, Path]]:
    """A copy of the kind's files with one of them damaged, for each number; the same folder again and again."""
    targets = kind.targets()
    copy = work / "copy"
    shutil.copytree(kind.folder, copy)
    for number in numbers:
        random = Random(f"{name}/{number}")
        file, how = targets[random.randrange(len(targets))]
        whole = (kind.folder / file).read_bytes()
        (copy / file).write_bytes(how(whole, random))
        yield number, file, copy
        (copy / file).write_bytes(whole)


def outcome(kind: Kind, copy: Path, file: str) -> str:
    """What became of it; what must not be ends in a traceback."""
    try:
        with limited(SECONDS):
            kind.read(copy, file)
    except UserError:
        return "refused"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return "".join(traceback.format_exception(error)[-6:])
    return "read"


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_read_or_refused(name: str, ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    check_all(KINDS[name](ground, tmp_path / "whole"), name, COUNT, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", ALL_KINDS, ids=str)
def test_a_damaged_pipeline_of_any_family_is_read_or_refused(family: Family, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    check_all(pipeline_of(family, tmp_path / "whole"), str(family), COUNT // 5, tmp_path)


def check_all(kind: Kind, name: str, count: int, work: Path) -> None:
    for file, _ in kind.targets():
        kind.read(kind.folder, file)
    counts: Counter[str] = Counter()
    wrong = []
    for number, file, copy in damaged(kind, name, range(FIRST, FIRST + count), work):
        result = outcome(kind, copy, file)
        counts[result if result in ("read", "refused") else "wrong"] += 1
        wrong += [] if result in ("read", "refused") else [f"seed {number}, {file}:\n{result}"]
    print(f"{name}: {dict(counts)}")
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:5])
    assert counts["refused"] > count / 20, counts
    assert counts["read"] + counts["refused"] == count


@pytest.mark.parametrize("name", KINDS)
def test_the_command_line_says_it_in_one_message(
    name: str, ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "whole").mkdir()
    kind = KINDS[name](ground, tmp_path / "whole")
    statuses: Counter[int] = Counter()
    for number, file, copy in damaged(kind, name, range(FIRST, FIRST + COMMANDS), tmp_path):
        with limited(SECONDS):
            status = main([str(word) for word in kind.command(copy)])
        said = capsys.readouterr()
        assert status in (0, 2), f"seed {number}, {file}: {said.err}"
        assert "Traceback" not in said.out + said.err, f"seed {number}, {file}: {said.err}"
        shutil.rmtree(tmp_path / "exported", ignore_errors=True)
        statuses[status] += 1
    print(f"{name}: {dict(statuses)}")
