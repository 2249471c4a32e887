"""What a session asks of a contributor, as its owner judges it. Sizes and names, never text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One session's wish for a node's rows.

    Attributes:
        publisher: id of the node that gets the rows.
        subject: who asks, as the publisher vouches; empty if it does not say.
        purpose: what for, as the publisher says; empty if it does not say.
        layers: zero-based blocks at which the node would send rows.
        num_rows: most rows of one head it would send at each of them, in the mean: so many tokens'
            worth. Heads may keep rows of different tokens, so rows of more tokens may travel.
        keep_ratio: the same, as a share of all its tokens.
        num_bytes: most bytes it would send in all; of answers, as many as are expected.
        session_id: of the session.
        share: what the node was told of the question.
        is_asked: whether rows stay with the node, and it answers the publisher's queries.
    """

    publisher: str
    subject: str
    purpose: str
    layers: tuple[int, ...]
    num_rows: int
    num_bytes: int
    session_id: str
    share: str = ""
    keep_ratio: float = 1.0
    is_asked: bool = False

    @property
    def who(self) -> tuple[str, str, str]:
        """Publisher, subject and purpose: what an approval is for."""
        return self.publisher, self.subject, self.purpose

    def covers(self, other: "Ask") -> bool:
        """Whether who has this much is to get what `other` asks for."""
        return (
            self.who == other.who
            and self.is_asked == other.is_asked
            and set(other.layers) <= set(self.layers)
            and other.num_rows <= self.num_rows
            and other.num_bytes <= self.num_bytes
        )
