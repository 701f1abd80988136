"""SIGINT and SIGTERM while a run trains: noted, so that the run can save; the second one stops at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_WATCHED = (signal.SIGINT, signal.SIGTERM)
_SAY = b"\nstopping after this stretch of outer steps, and saving; once more to stop at once\n"


class Signals:
    """A context in which the first SIGINT or SIGTERM is noted in `received`, and the second ends the process at once.

    A handler of Python's runs only between two steps of the interpreter, which may be a compilation away. So a thread
    listens at the pipe that Python writes every signal to the moment it comes. Outside the main thread, where Python hands
    out no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.received = 0
        self._handlers: dict[int, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._handlers = {number: signal.signal(number, self._note) for number in _WATCHED}
        self._wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._pipe = writing
        threading.Thread(target=_listen, args=(reading,), name="metaception-signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handlers:
            return
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            # A handler that was not Python's (JAX's preemption service sets one) reads as None, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._handlers = {}
        os.close(self._pipe)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = self.received or number


def _listen(pipe: int) -> None:
    """Say what the first signal does; end the process at the second. Ends itself when the pipe is closed."""
    asked = False
    with os.fdopen(pipe, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] not in _WATCHED:
                continue
            if asked:
                os._exit(128 + number[0])
            asked = True
            os.write(2, _SAY)
