"""What a member tells its exchange, by its role in the session."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fedattn.core.asked import DEFAULT_QUERY_CODEC
from fedattn.core.row_scores import RowScorer
from services.participant.answers import AskedNode
from services.participant.arrivals import LayerListener
from services.participant.kv_cache import CachedRows


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherOptions:
    """How a publisher receives and asks.

    Attributes:
        cached: rows that it has from earlier sessions, by cache key.
        required: ids of members without all of whose rows it cannot go on.
        query_codec: how its queries, and what others make of them, are written.
        on_layer: told of every layer received.
    """

    cached: Mapping[bytes, CachedRows] = field(default_factory=dict)
    required: Collection[str] = ()
    query_codec: str = DEFAULT_QUERY_CODEC
    on_layer: LayerListener = lambda *_: None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributorOptions:
    """How a contributor sends, or answers.

    Attributes:
        scorer: chooses rows for the selector `learned`.
        withheld: tokens of its span whose rows never travel.
        asked: what it answers from; None if it is not asked.
    """

    scorer: RowScorer | None = None
    withheld: Collection[int] = ()
    asked: AskedNode | None = None
