"""All that the members of one session agree on before it begins."""

from dataclasses import dataclass

from fedattn.core.spans import SessionLayout
from fedattn.core.types import KvShape


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTerms:
    """What the aggregator laid out, as every member gets it.

    Attributes:
        session_id: random, 32 hex digits.
        layout: members in token order, the publisher last.
        shape: sizes of the KV rows.
        deadline_s: longest life of the session, seconds.
        progress_timeout_s: longest wait for rows without any progress, seconds.
        min_participants: fewest, publisher included, that must stay complete.
        wants_timeline: whether members tell what they did when.
    """

    session_id: str
    layout: SessionLayout
    shape: KvShape
    deadline_s: float
    progress_timeout_s: float
    min_participants: int
    wants_timeline: bool = False

    def __post_init__(self) -> None:
        if self.layout.num_layers != self.shape.num_layers:
            raise ValueError(
                f"the layout is for {self.layout.num_layers} blocks, the KV rows for "
                f"{self.shape.num_layers}"
            )
