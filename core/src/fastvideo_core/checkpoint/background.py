"""One piece of work in a thread beside the training."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs a function at once, in a thread when `threaded`; what it raises is kept for `wait`.

    The thread ends with the process: a process whose peers are gone must not hang on work that it shares with them.
    """

    def __init__(self, work: Callable[[], None], *, threaded: bool) -> None:
        self._work = work
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name="fastvideo-checkpoint", daemon=True)
            self._thread.start()
        else:
            self._run()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def _is_done(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def succeeded(self) -> bool:
        """Whether the work is done, without an error."""
        return self._is_done() and self.error is None

    def failed(self) -> bool:
        """Whether the work is done, with an error."""
        return self._is_done() and self.error is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end of the work, `timeout` seconds at most; whether it was reached. Raises what the work raised."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        if self.error is not None:
            raise self.error
        return True
