"""Places for sessions, shared so that nobody takes all of them."""

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from fedattn.core.errors import NodeBusyError, RateLimitedError

K = TypeVar("K")


class Place:
    """One session's place; given back once, by `release` or at the end of a `with` block.

    Args:
        give_back: called once.
    """

    def __init__(self, give_back: Callable[[], object]) -> None:
        self._give_back: Callable[[], object] | None = give_back

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.release()


class FairPlaces:
    """So many places, by publisher and subject. Not for several threads.

    A publisher that holds places gets one more only while as many stay free for others as it would
    then hold. The owner of the places, if it is a publisher too, may hold all. A subject, if its
    publisher tells one, gets at most half, rounded up, of what a publisher could hold alone: also
    one of the owner, as contributors with as many places would give it no more.

    Example, 8 places: alone a publisher holds 4, and each of its subjects 2. A second one then
    gets 2, and a third and a fourth one each.

    Args:
        owner: whose they are; a node id, or words.
        most: places.
        most_each: that one publisher gets, if its own limit is lower; here it bounds subjects only.
    """

    def __init__(self, owner: str, most: int, most_each: int | None = None) -> None:
        self._owner, self._most = owner, most
        alone = _half(most)
        self._most_of_subject = _half(alone if most_each is None else min(alone, most_each))
        self._of_publishers: Counter[str] = Counter()
        self._of_subjects: Counter[tuple[str, str]] = Counter()

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._of_publishers.total()

    def take(self, publisher: str, subject: str = "") -> Place:
        """A place for one more session of a publisher, for a subject of it if it tells one.

        Raises:
            NodeBusyError: there is none.
            RateLimitedError: there is none for them, who hold some already.
        """
        self._check(publisher, subject)
        self._of_publishers[publisher] += 1
        self._of_subjects[publisher, subject] += 1
        return Place(lambda: self._give_back(publisher, subject))

    def _check(self, publisher: str, subject: str) -> None:
        left = self._most - self.taken - 1
        held = self._of_publishers[publisher]
        if left < 0:
            raise NodeBusyError(
                f"all {self._most} places for sessions of {self._owner} are taken; try again later"
            )
        if held and left < held + 1 and publisher != self._owner:
            raise RateLimitedError(
                f"{publisher} holds {held} of the {self._most} places for sessions of "
                f"{self._owner}, and the {left + 1} free ones are kept for others; try again when "
                f"one of its sessions has ended"
            )
        most = self._most_of_subject
        if subject and self._of_subjects[publisher, subject] >= most:
            raise RateLimitedError(
                f"{subject} of {publisher} holds {most} of the {self._most} "
                f"places for sessions of {self._owner}, the most of one subject; try again when "
                f"one of its sessions has ended"
            )

    def _give_back(self, publisher: str, subject: str) -> None:
        _count_down(self._of_publishers, publisher)
        _count_down(self._of_subjects, (publisher, subject))


def _count_down(counts: Counter[K], key: K) -> None:
    """One less, and no entry for none: names come and go."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _half(number: int) -> int:
    return (number + 1) // 2
