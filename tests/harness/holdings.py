"""What an aggregator holds for others."""

from prometheus_client import CollectorRegistry

from fedattn.core.session import MemberState
from services.aggregator.servicer import AggregatorServicer
from services.aggregator.session import Session

OUTBOX_BYTES = 4096
"""So few that a receiver which lags behind fills it with three frames."""
_SLACK_BYTES = 16 << 10
"""What is pushed room or not: notices, and a message that finds an outbox empty."""


class Holdings:
    """A look into an aggregator."""

    def __init__(self, aggregator: AggregatorServicer, numbers: CollectorRegistry) -> None:
        self._aggregator, self._numbers = aggregator, numbers

    def sessions(self) -> list[Session]:
        return list(self._aggregator.sessions._sessions.values())

    def num_opening(self) -> int:
        return len(self._aggregator.sessions._opening)

    def num_places(self) -> int:
        quotas = self._aggregator.sessions._quotas
        held = sum(map(len, quotas._ends.values()))
        assert held == quotas._places.taken
        return held

    def num_open_by_metrics(self) -> int:
        return int(self._numbers.get_sample_value("fedattn_aggregator_sessions_open") or 0)

    def listed(self) -> set[str]:
        return {node.node_id for node in self._aggregator._nodes.all()}

    def check_outboxes(self) -> None:
        for session in self.sessions():
            for outbox, ledger in zip(session.outboxes, session.state.ledgers, strict=True):
                assert outbox.size <= OUTBOX_BYTES + _SLACK_BYTES
                assert outbox.size == 0 or ledger.state is not MemberState.LOST

    def check_nothing_is_left(self) -> None:
        sessions = self._aggregator.sessions
        assert not self.sessions()
        assert not sessions._watchers
        assert self.num_opening() == self.num_places() == self.num_open_by_metrics() == 0
        assert not self._aggregator.roll._invitations._pending
        assert self.listed() == set()
