"""One run of a program at a time, and what must not break into it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from chainrule.errors import ChainruleError


class ProgramError(ChainruleError, RuntimeError):
    """A program that cannot be run as it was asked to."""


class Turn:
    """A lock that says so when it is wanted by the thread that has it.

    with turn.lock():               # Python's own: nothing breaks in between this and the block
        turn.owner = threading.get_ident()
        ...
        turn.owner = None
    """

    __slots__ = ("_lock", "owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.owner: int | None = None

    def lock(self) -> threading.Lock:
        """The lock.

        Raises:
            ProgramError: if this thread has it.
        """
        if self._lock.locked() and self.owner == threading.get_ident():
            raise ProgramError(
                "a compiled function was called in the middle of its own run, by a signal handler; "
                "let the handler set a flag, and call the function after the run."
            )
        return self._lock


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is None:  # no business of Python's
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
