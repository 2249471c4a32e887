"""Prefills and running answers on the same cores."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Cores:
    """Keeps prefills from slowing down running answers: beside those, one block of one at a time.

    While no answer runs, prefills compute as they come. As soon as one does, they take turns, a
    block each in the order in which they ask; so however many there are, and however long, the
    threads of at most one compete with the steps of the answers. A prefill that waits for rows of
    other nodes has no turn meanwhile.

    Example, prefills a and b, an answer from the second block on:

        a  |--0--|--1--|     |--2--|     |--3--|
        b  |--0--|     |--1--|     |--2--|
           free        answers run: in turns
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answers = 0
        self._computing = 0
        self._waiting: deque[Turn] = deque()

    @property
    def num_waiting(self) -> int:
        """Prefills that wait for a turn."""
        return len(self._waiting)

    @property
    def is_prefilling(self) -> bool:
        """Whether a prefill computes, or waits for its turn."""
        return bool(self._computing or self._waiting)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """An answer is decoded within this block."""
        self._count_answers(1)
        try:
            yield
        finally:
            self._count_answers(-1)

    @contextmanager
    def prefilling(self) -> Iterator["Turn"]:
        """A prefill computes within this block, but for what it does `away`."""
        turn = Turn(self)
        turn.take()
        try:
            yield turn
        finally:
            if turn.is_held:
                turn.give_back()

    def take(self, turn: "Turn") -> None:
        """Wait until a prefill may compute."""
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._is_free_for(turn))
            self._waiting.remove(turn)
            self._computing += 1
            self._changed.notify_all()

    def _is_free_for(self, turn: "Turn") -> bool:
        return not self._answers or (not self._computing and self._waiting[0] is turn)

    def give_back(self) -> None:
        """A prefill computes no more for now."""
        with self._changed:
            self._computing -= 1
            self._changed.notify_all()

    def _count_answers(self, change: int) -> None:
        with self._changed:
            self._answers += change
            self._changed.notify_all()


class Turn:
    """What one prefill computes by; of its thread alone.

    Attributes:
        is_held: whether it may compute now.
    """

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self.is_held = False

    def take(self) -> None:
        """Wait for the turn."""
        self._cores.take(self)
        self.is_held = True

    def give_back(self) -> None:
        """Let others have it."""
        self.is_held = False
        self._cores.give_back()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Between two blocks: others have their turns, and this one may wait for rows.

        A prefill that fails meanwhile ends without another turn.
        """
        self.give_back()
        yield
        self.take()
