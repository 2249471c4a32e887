"""Members that one member of a session had to go on without, and why."""

import threading
from collections.abc import Collection, Iterable, Mapping

from fedattn.core.errors import FedAttnError, NotEnoughParticipantsError
from fedattn.core.session import SessionState


class Losses:
    """Shared by what waits for others' rows and what asks them.

    Args:
        state: members of the session.
        min_participants: fewest that must be left at a layer.
        required: ids of members that must be among them.

    Attributes:
        changed: to be held for all else here; notified when something has come or was lost.
        error: what the session has ended with.
        lost: members that send no more.
        late: member -> layer from which on nothing of it is taken.
    """

    def __init__(
        self, state: SessionState, min_participants: int = 0, required: Collection[str] = ()
    ) -> None:
        self._state = state
        self._min_participants, self._required = min_participants, required
        self.changed = threading.Condition()
        self.error: FedAttnError | None = None
        self.lost: set[int] = set()
        self.late: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self._missed: dict[int, int] = {}

    # -- event loop ------------------------------------------------------------------------------

    def mark_lost(self, sender: int, reason: str) -> None:
        """A member sends no more."""
        with self.changed:
            self.lost.add(sender)
            self._reasons.setdefault(sender, reason)
            self.changed.notify_all()

    def end(self, error: FedAttnError) -> None:
        """The session is over: whoever waits gets this error."""
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()

    # -- model thread ----------------------------------------------------------------------------

    def check(self) -> None:
        """Raise the session's error, if it is over."""
        with self.changed:
            if self.error is not None:
                raise self.error

    def leave_out(self, sender: int, layer: int, reason: str) -> None:
        """Take nothing of a member from a layer on."""
        self.late.setdefault(sender, layer)
        self._reasons.setdefault(sender, reason)

    def is_out(self, sender: int) -> bool:
        """Whether nothing of a member is to come."""
        return sender in self.late or sender in self.lost

    def require_enough(self, layer: int, missing: Iterable[int]) -> None:
        """Go on without members at a layer, if those that are left suffice.

        Raises:
            NotEnoughParticipantsError: they do not; names those that are missing.
        """
        left_out = list(missing)
        for sender in left_out:
            self._missed.setdefault(sender, layer)
        ids = {sender: self._state.member(sender).node_id for sender in left_out}
        for sender in left_out:
            if ids[sender] in self._required:
                raise NotEnoughParticipantsError(
                    f"the query requires {ids[sender]}, and {self._explain(sender)} from layer "
                    f"{layer} on; ask again, or leave it out of `require`"
                )
        remaining = len(self._state.layout.members) - len(self._missed)
        if left_out and remaining < self._min_participants:
            names = ", ".join(self._explain(sender) for sender in left_out)
            raise NotEnoughParticipantsError(
                f"{remaining} participants are left at layer {layer}, "
                f"{self._min_participants} are required: {names}",
                lost=tuple(ids.values()),
            )

    def left_out(self) -> dict[int, tuple[int, str]]:
        """Member -> first layer at which this one had to go on without it, and why."""
        with self.changed:
            return self._with_reasons(self._missed)

    def late_members(self) -> dict[int, tuple[int, str]]:
        """The same of those that were late and not lost."""
        with self.changed:
            return self._with_reasons(self.late)

    def _with_reasons(self, layers: Mapping[int, int]) -> dict[int, tuple[int, str]]:
        return {sender: (layer, self._reasons[sender]) for sender, layer in layers.items()}

    def _explain(self, sender: int) -> str:
        node_id = self._state.member(sender).node_id
        if sender in self.late:
            return f"{node_id} is late ({self._reasons[sender]})"
        return f"{node_id} is lost ({self._reasons.get(sender, 'no reason given')})"
