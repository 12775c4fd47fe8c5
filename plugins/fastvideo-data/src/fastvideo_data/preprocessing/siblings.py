"""The processes of one call of `preprocess` that write into one data set: they let each other in, and nobody else."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fastvideo_core.dispatch.output_dir import LOCK
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.preprocessing.clips import PreprocessOptions

logger = logging.getLogger(__name__)

_POLL = 0.1
_PATIENCE = 3.0
"""Seconds in which a sibling that has the first byte says so in the file."""
_TEXT_BYTES = 200


def call_of(source: Path, options: PreprocessOptions, count: int) -> str:
    """What the processes of one call have in common."""
    same = replace(options, samples_per_file=1, batch_size=1)
    return f"call {zlib.crc32(repr((os.path.realpath(source), same)).encode()):08x} in {count} shares"


class Siblings:
    """A data set's folder, while processes of one call write into it; a context.

    They lock parts of the file that a call of one process locks as a whole (`alone_in`), so that neither gets in while the
    other is there: byte 0 for as long as one must act alone, and byte 1 + I for share I. The file says which call it is.

    Args:
        folder: the data set; made when it is not there.
        shares: the shares of this process.
        call: what is equal for the processes of one call alone.
        prepare: is called where no other process is there, and none gets in until it returns.

    Raises:
        ConfigError: another call is going on there, or another process has one of the shares.
    """

    def __init__(self, folder: Path, shares: range, call: str, prepare: Callable[[], None]) -> None:
        self._folder = folder
        self._shares = shares
        self._call = call
        self._prepare = prepare
        self._file = -1

    def __enter__(self) -> Siblings:
        path = self._folder / LOCK
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            found = "is a link" if error.errno == errno.ELOOP else f"cannot be written: {error.strerror}"
            raise ConfigError(Problem(found, str(path), fix="make the folder writable, or name another one")) from error
        try:
            with self.turn():
                if self._locked(1, 0):  # to the end
                    self._say()
                    self._prepare()
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 0, 1)
                elif not self._is_ours():
                    raise self._refused()
                if not self._locked(1 + self._shares.start, len(self._shares)):
                    raise self._refused(f"another process has its share {self._shares.start}")
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keeps the other processes out of what one must do alone; waits for its turn.

        Raises:
            ConfigError: as the class.
        """
        waited = 0.0
        while not self._locked(0, 1):
            if waited > _PATIENCE and not self._is_ours():
                raise self._refused()
            time.sleep(_POLL)
            waited += _POLL
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    def _locked(self, start: int, length: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            logger.warning(
                "%s cannot be locked (%s): nothing tells when another call begins", self._folder, error.strerror
            )
        return True

    def _say(self) -> None:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} on {socket.gethostname()}, since {since}, {self._call}\n"
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)

    def _holder(self) -> str:
        return os.pread(self._file, _TEXT_BYTES, 0).decode(errors="replace").strip()

    def _is_ours(self) -> bool:
        return self._holder().endswith(f", {self._call}")

    def _refused(self, found: str = "another run is going on in it") -> ConfigError:
        holder = "".join(filter(str.isprintable, self._holder())) or "it has just begun"
        allowed = "one call at a time, and each of its shares once"
        fix = "wait for its end, stop it, or name another --output"
        return ConfigError(Problem(f"{found}: {holder}", f"--output ({self._folder})", allowed, fix))
