"""What tests of the training loop start from."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(autouse=True)
def hangups_are_heeded():
    """Also where the tests themselves were started with nohup, which has every process below it ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
