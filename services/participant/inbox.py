"""Rows of earlier spans as they arrive, and what the model thread does when they do not."""

import threading
import time

from fedattn.core.chunks import Chunk, FrameAssembler
from fedattn.core.errors import FedAttnError, MalformedFrameError, NotEnoughParticipantsError
from fedattn.core.frames import FrameRules, decode_frame
from fedattn.core.session import SessionState
from fedattn.core.types import KvRows, concatenate_rows


class RowInbox:
    """Frames sent to one member of a session. Written by the event loop, read by the model thread.

    Bounded by the session's layout: only frames that the route awaits are accepted, each once.
    """

    def __init__(
        self,
        state: SessionState,
        index: int,
        *,
        progress_timeout_s: float,
        min_participants: int,
    ) -> None:
        self._state = state
        self._route = state.routes[index]
        self._rules: dict[int, FrameRules] = {i: state.rules(i) for i in self._route.senders}
        self._assemblers = {
            sender: FrameAssembler(rules, self._route.receives)
            for sender, rules in self._rules.items()
        }
        self._frames: dict[tuple[int, int], bytearray] = {}
        self._lost: dict[int, str] = {}
        self._late: dict[int, int] = {}
        self._error: FedAttnError | None = None
        self._last_arrival = 0.0
        self._changed = threading.Condition()
        self._progress_timeout_s = progress_timeout_s
        self._min_participants = min_participants
        self.wait_s = 0.0

    # -- event loop ------------------------------------------------------------------------------

    def add(self, sender: int, chunk: Chunk) -> None:
        """Take a chunk of an earlier member.

        Raises:
            FrameError: it is not what this member awaits.
        """
        if sender not in self._assemblers:
            raise MalformedFrameError(f"rows of member {sender} do not belong here")
        frame = self._assemblers[sender].add(chunk)
        with self._changed:
            self._last_arrival = time.monotonic()
            if frame is not None and sender not in self._late:
                self._frames[sender, chunk.layer] = frame
            self._changed.notify_all()

    def lose(self, sender: int, reason: str) -> None:
        """An earlier member sends no more."""
        with self._changed:
            self._lost.setdefault(sender, reason)
            self._changed.notify_all()

    def end(self, error: FedAttnError) -> None:
        """The session is over: whoever waits gets this error."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    # -- model thread ----------------------------------------------------------------------------

    def check(self) -> None:
        """Raise the session's error, if it is over."""
        with self._changed:
            if self._error is not None:
                raise self._error

    def take(self, layer: int) -> KvRows:
        """Rows of all earlier spans at a layer, in token order; waits for them.

        A member that is lost is left out, and so is one after `progress_timeout_s` in which
        nothing at all arrived.

        Raises:
            FedAttnError: the session is over, or too few participants are left.
        """
        begun = time.monotonic()
        with self._changed:
            while self._error is None and (missing := self._missing(layer)):
                last_progress = max(begun, self._last_arrival)
                left_s = last_progress + self._progress_timeout_s - time.monotonic()
                if left_s <= 0:
                    self._late.update(dict.fromkeys(missing, layer))
                else:
                    self._changed.wait(left_s)
            self.wait_s += time.monotonic() - begun
            if self._error is not None:
                raise self._error
            frames = {
                sender: frame
                for sender in self._route.senders
                if (frame := self._frames.pop((sender, layer), None)) is not None
            }
            self._require_enough(layer, frames)
        parts = [decode_frame(frame, self._rules[sender]) for sender, frame in frames.items()]
        return concatenate_rows(parts, self._state.shape)

    def left_out(self) -> set[int]:
        """Members whose rows did not all come."""
        with self._changed:
            return {*self._lost, *self._late}

    def late_members(self) -> dict[int, int]:
        """Member -> first layer at which this one went on without it."""
        with self._changed:
            return dict(self._late)

    def _missing(self, layer: int) -> list[int]:
        return [
            sender
            for sender in self._route.senders
            if sender not in self._late
            and sender not in self._lost
            and (sender, layer) not in self._frames
        ]

    def _require_enough(self, layer: int, frames: dict[int, bytearray]) -> None:
        left_out = [sender for sender in self._route.senders if sender not in frames]
        remaining = len(self._state.layout.members) - len(left_out)
        if left_out and remaining < self._min_participants:
            names = ", ".join(self._explain(sender) for sender in left_out)
            raise NotEnoughParticipantsError(
                f"{remaining} participants are left at layer {layer}, "
                f"{self._min_participants} are required: {names}"
            )

    def _explain(self, sender: int) -> str:
        node_id = self._state.member(sender).node_id
        if sender in self._lost:
            return f"{node_id} is lost ({self._lost[sender]})"
        return f"{node_id} is late (no rows for {self._progress_timeout_s:g} s)"
