"""Words in which a session and its nodes are reported; values as the REST API writes them."""

from enum import StrEnum


class Outcome(StrEnum):
    """How a participant's part of a session ended."""

    COMPLETE = "complete"  # all that was needed of it came
    LOST = "lost"  # it vanished or broke the protocol
    LATE = "late"  # somebody went on without it
    EXCLUDED = "excluded"  # it did not take part
    EMPTY = "empty"  # it had nothing to give
    DEPARTED = "departed"  # it had left within the last hour

    @property
    def took_part(self) -> bool:
        """Whether it was a member at all."""
        return self not in {Outcome.EXCLUDED, Outcome.EMPTY, Outcome.DEPARTED}


class NodeState(StrEnum):
    """Whether a node is there, and whether it let others wait of late."""

    GOOD = "good"
    LATE = "late"  # the last time it was asked: it is asked after all others
    RESTING = "resting"  # several times in a row: it is not asked for a while
    DEPARTED = "departed"  # it left within the last hour


class RowSource(StrEnum):
    """Where a contributor's rows came from."""

    COMPUTED = "computed"  # it computed and sent them
    CONTRIBUTOR_CACHE = "contributor_cache"  # it sent frames it had cached
    PUBLISHER_CACHE = "publisher_cache"  # the publisher had them cached; nothing travelled
    ASKED = "asked"  # they stayed with their owner, which answered queries


class FinishReason(StrEnum):
    """Why decoding ended."""

    END = "end"  # the model ended its answer
    LENGTH = "length"  # max_new_tokens was reached
    STOP = "stop"  # a stop string came


class Pressure(StrEnum):
    """How much heat or lack of memory troubles a node."""

    NONE = "none"
    HIGH = "high"  # contributes fewer rows, and computes on half of its threads
    CRITICAL = "critical"  # takes no new sessions; those that run go on
