"""What holds for the tests of all packages."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Runs heed SIGHUP, also where the tests were started to ignore it (nohup, which what they start would inherit)."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # a hang-up still ends no test
