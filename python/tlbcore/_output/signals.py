"""SIGTERM and SIGHUP end long work as Ctrl-C does: what is done is kept."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def endings() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise KeyboardInterrupt; at the end the process gets the signal again.

    So work that keeps what it has on Ctrl-C keeps it then too, and the process still ends as whoever sent the signal
    expects. Handlers of the user's own stay; so does everything outside the main thread, where Python has no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    ours = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if came:
            os.kill(os.getpid(), came[0])
