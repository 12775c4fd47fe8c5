"""A disk that has no room for the checkpoints of some steps."""

from __future__ import annotations

import errno
import os

import pytest

from fastvideo_core.checkpoint import storage


def full_disk(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """From now on, saving any of these steps fails when its last file is written."""
    original = storage.write_document

    def write(folder, document):
        if document.step in steps:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(folder, document)

    monkeypatch.setattr(storage, "write_document", write)
