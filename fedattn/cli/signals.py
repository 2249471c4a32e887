"""Signals that end a program."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def unwinding_on_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a closed terminal, end the block as Ctrl-C does.

    What the block has started is then stopped, and its folders are removed. A signal that is
    handled otherwise, or ignored as under nohup, stays as it is.
    """
    is_main = threading.current_thread() is threading.main_thread()  # others may not set handlers
    ours = [number for number in _ENDING if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def set_on_signals(event: threading.Event) -> None:
    """Set an event, for the rest of the program, at Ctrl-C and at the signals above."""
    for number in (signal.SIGINT, *_ENDING):
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # under nohup
        signal.signal(number, lambda *_: event.set())


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
