"""A question that is asked meanwhile, and what its client saw."""

import threading
import time
from dataclasses import dataclass, field

from fedattn.client import Client
from fedattn.core.errors import FedAttnError
from fedattn.core.report import Outcome
from fedattn.core.share import Share
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.events import LayerEvent, SessionEvent, TokenEvent
from fedattn.rest.fields import CompressionBody, SamplingBody
from fedattn.rest.query import QueryBody
from tests.chaos.faults import Phase

DEADLINE_S = 30.0
GUARD_S = DEADLINE_S + 45.0
"""A client that has heard no end by then hangs: the deadline, the gateway's time, its own."""
_EVENTS = {Phase.EXCHANGE: SessionEvent, Phase.DECODING: TokenEvent}
QUERY = QueryBody(
    question="Which bed is free?",
    share=Share.NOTHING,  # everybody takes part, whatever fits
    plan="1-4",
    compression=CompressionBody(codec="fp32", keep_ratio=1.0),
    sampling=SamplingBody(max_new_tokens=120, temperature=0.0),
    deadline_s=DEADLINE_S,
    min_participants=1,
    reuse=False,
)


@dataclass(slots=True)
class Asking:
    """One query in a thread of its own.

    Attributes:
        answer: that came, if one did.
        error: that came instead.
        ended_at: when, by `time.monotonic`.
    """

    gateway_url: str
    answer: QueryAnswer | None = None
    error: FedAttnError | None = None
    ended_at: float = 0.0
    _seen: dict[type, threading.Event] = field(
        default_factory=lambda: {kind: threading.Event() for kind in _EVENTS.values()}
    )
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            with Client(self.gateway_url, retries=0) as client:
                for event in client.stream(QUERY):
                    if isinstance(event, QueryAnswer):
                        self.answer = event
                    elif not isinstance(event, LayerEvent):
                        self._seen[type(event)].set()
        except FedAttnError as error:
            self.error = error
        finally:
            self.ended_at = time.monotonic()
            for seen in self._seen.values():  # nobody waits for what comes no more
                seen.set()

    def reach(self, phase: Phase) -> None:
        """Wait for a phase that shows in the client's events, or for the end."""
        self._seen[_EVENTS[phase]].wait(GUARD_S)

    def taking_part(self) -> set[str]:
        """Nodes that gave their whole part to the answer."""
        told = () if self.answer is None else self.answer.participants
        return {one.node_id for one in told if one.state is Outcome.COMPLETE}

    def is_over_within(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()
