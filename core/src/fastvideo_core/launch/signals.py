"""What signals ask of a run while it trains (stop after this step, stop now, save); training/updates.py acts on it.

SIGTERM, SIGHUP and SIGINT ask for a stop, a second SIGINT ends the process at once, SIGUSR1 asks for a checkpoint. A SIGHUP
that was ignored when the process started (nohup) stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import NoReturn

from fastvideo_core.launch.launcher import has_ended_peer, has_own_launcher, register_ready
from fastvideo_core.launch.peers import lost_peer

SAVE = 1
STOPPED_BY = {2: signal.SIGINT, 3: signal.SIGHUP, 4: signal.SIGTERM}  # requests; of several, the highest counts
_REQUESTS = {signal.SIGUSR1: SAVE} | {number: request for request, number in STOPPED_BY.items()}
# What is said of a run that did not end in order: by its only process, or by the launcher of several.
ENDED_AT_ONCE = "ended at once by a second SIGINT; --resume latest goes on from the last checkpoint, if there is one"


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, `handler` takes what makes requests; not a SIGHUP that this process was started to ignore."""
    heeded = [number for number in _REQUESTS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class RunSignals(ExitStack):
    """Inside the context, signals become requests; outside of the main thread, where Python gives none, nothing happens.

    A thread reads every signal as it comes, also while the main thread waits inside a collective: it ends the process at
    the second SIGINT, and at a SIGTERM or SIGHUP that comes before there is anything to save (while not `begun`), or because
    another process of the run is gone. `request` is the highest that came and was not taken; 0 is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.request = 0
        self.begun = False

    def __enter__(self) -> RunSignals:
        if threading.current_thread() is threading.main_thread():
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            self.callback(os.close, writer)  # ends the thread
            self.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer, warn_on_full_buffer=False))
            threading.Thread(target=self._watch, args=(reader,), name="fastvideo-signals", daemon=True).start()
            self.enter_context(handling(self._take_note))
            register_ready()
        return self

    def take(self) -> int:
        """The request, which is none from now on."""
        request, self.request = self.request, 0
        return request

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        self.request = max(self.request, _REQUESTS[signal.Signals(number)])

    def _watch(self, pipe: int) -> None:
        interrupts = 0
        while byte := os.read(pipe, 1):
            interrupts += byte[0] == signal.SIGINT
            if interrupts > 1:
                _end(signal.SIGINT, ENDED_AT_ONCE)
            if byte[0] in (signal.SIGTERM, signal.SIGHUP):
                if not self.begun:
                    name = signal.Signals(byte[0]).name
                    _end(byte[0], f"stopped by {name} before the first step: there is nothing to save")
                if has_ended_peer() or lost_peer() is not None:
                    os._exit(128 + byte[0])
        os.close(pipe)


def _end(number: int, words: str) -> NoReturn:
    if os.environ.get("RANK", "0") == "0" and not has_own_launcher():
        with suppress(OSError):  # its reader may have gone
            os.write(2, f"\n{words}\n".encode())  # sys.stderr may be held by the main thread
    os._exit(128 + number)
