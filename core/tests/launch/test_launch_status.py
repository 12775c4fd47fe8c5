"""What the launcher says of a run whose processes failed, when an error and an end that was asked for come together."""

from __future__ import annotations

import signal

import pytest

from fastvideo_core.launch import processes as launch
from fastvideo_core.launch.launcher import RunError
from fastvideo_core.launch.signals import ENDED_AT_ONCE


@pytest.mark.parametrize(
    ("interrupts", "error_at", "status", "said"),
    [
        ([], 3.0, 2, "error: the disk is full"),
        ([1.0], 3.0, 2, "error: the disk is full"),  # while it saved
        ([1.0, 5.0], 3.0, 2, "error: the disk is full"),
        ([1.0, 2.0], 3.0, 130, ENDED_AT_ONCE),  # its peer is gone
        ([1.0, 2.0], None, 130, ENDED_AT_ONCE),
        ([1.0], None, 130, ""),
    ],
)
def test_an_error_is_shown_unless_a_second_interrupt_came_before_it(capsys, interrupts, error_at, status, said):
    error = None if error_at is None else RunError("error: the disk is full", status=2, time=error_at)
    received = [(signal.SIGINT, at) for at in interrupts]
    assert launch._status({}, error, 2, received) == status
    assert capsys.readouterr().err.strip() == said
