"""Waiting for an event fails with words."""

from __future__ import annotations

import pytest

from fastvideo_testing import waiting
from fastvideo_testing.waiting import wait_until


class Ended:
    def poll(self) -> int | None:
        return 3


def test_it_ends_with_the_event():
    seen = iter([False, False, True])
    wait_until(lambda: next(seen), "the third look")


def test_a_process_that_ends_without_the_event_is_a_failure_with_words():
    with pytest.raises(AssertionError, match="the process ended with 3 before this happened: a file"):
        wait_until(lambda: False, "a file", Ended())


def test_waiting_in_vain_is_a_failure_with_words(monkeypatch):
    monkeypatch.setattr(waiting, "LIMIT", 0.0)
    with pytest.raises(AssertionError, match="waited 0 s in vain for this: a file"):
        wait_until(lambda: False, "a file")
