"""Rows of earlier spans as they arrive, and what the model thread does when they do not."""

import time
from collections.abc import Mapping, Sequence

from fedattn.core.chunks import Chunk, FrameAssembler
from fedattn.core.errors import FrameError, MalformedFrameError
from fedattn.core.frames import ReceivedFrame
from fedattn.core.rotary import Rotary
from fedattn.core.row_bounds import RowBounds
from fedattn.core.session import SessionState
from fedattn.core.timeline import Activity, Timeline
from fedattn.core.transfer import place_rows, read_frame
from fedattn.core.types import HeadRows
from services.participant.arrivals import Arrival
from services.participant.kv_cache import CachedRows
from services.participant.losses import Losses
from services.participant.sealing import NoSealing, Sealing


class RowInbox:
    """Frames sent to one member of a session. Written by the event loop, read by the model thread.

    Bounded by the session's layout: only frames that the route awaits are accepted, each once.

    Args:
        state: routes and members of the session.
        index: place of this member.
        rotaries: of every block.
        bounds: of its rows; who sends longer ones is left out.
        progress_timeout_s: longest wait in which nothing at all arrives.
        losses: told who is left out, and knows who is lost.
        cached: rows from earlier sessions, by place of their owner.
        sealing: how frames are read; None for as they are.
        keeps_rows: whether received rows are kept for later sessions.
        timeline: told what the model thread waited for.

    Attributes:
        losses: of the session.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        state: SessionState,
        index: int,
        rotaries: Sequence[Rotary],
        *,
        bounds: RowBounds,
        progress_timeout_s: float,
        losses: Losses,
        cached: Mapping[int, CachedRows],
        sealing: Sealing | None = None,
        keeps_rows: bool = False,
        timeline: Timeline | None = None,
    ) -> None:
        self._state = state
        self._rotaries = rotaries
        self._bounds = bounds
        self._sealing = sealing or NoSealing()
        self._timeline = timeline or Timeline(is_on=False)
        self._route = state.routes[index]
        self._assemblers = {
            sender: FrameAssembler(state.frame_specs(sender, self._route.receives))
            for sender in self._route.senders
        }
        self._frames: dict[tuple[int, int], ReceivedFrame] = {}
        self._came_at: dict[tuple[int, int], float] = {}
        self.losses = losses
        self._last_arrival = 0.0
        self._cached = cached
        self._keeps_rows = keeps_rows
        self._received: dict[int, dict[int, HeadRows]] = {}
        self._progress_timeout_s = progress_timeout_s
        self.wait_s = 0.0
        self.arrivals: tuple[Arrival, ...] = ()

    # -- event loop ------------------------------------------------------------------------------

    def add(self, sender: int, chunk: Chunk) -> None:
        """Take a chunk of an earlier member.

        Raises:
            FrameError: it is not what this member awaits.
        """
        if sender not in self._assemblers:
            raise MalformedFrameError(f"rows of member {sender} do not belong here")
        frame = self._assemblers[sender].add(chunk)
        with self.losses.changed:
            self._last_arrival = time.monotonic()
            if frame is not None and sender not in self.losses.late:
                self._frames[sender, chunk.layer] = frame
                self._came_at[sender, chunk.layer] = self._last_arrival
            self.losses.changed.notify_all()

    # -- model thread ----------------------------------------------------------------------------

    def take(self, layer: int) -> list[HeadRows]:
        """Rows of all earlier spans at a layer, a part each in token order; waits for them.

        A member that is lost is left out, and so is one after `progress_timeout_s` in which
        nothing at all arrived. `arrivals` tells afterwards what came from whom.

        Raises:
            FedAttnError: the session is over, or too few participants are left.
        """
        begun = time.monotonic()
        with self.losses.changed:
            since = begun
            while self.losses.error is None and (missing := self._missing(layer)):
                left_s = max(since, self._last_arrival) + self._progress_timeout_s
                left_s -= time.monotonic()
                if left_s > 0:
                    self.losses.changed.wait(left_s)
                    continue
                reason = f"no rows for {self._progress_timeout_s:g} s"
                for sender in self._culprits(missing):
                    self.losses.leave_out(sender, layer, reason)
                since = time.monotonic()
            self.wait_s += time.monotonic() - begun
            if self.losses.error is not None:
                raise self.losses.error
            frames = self._pop_frames(layer)
        self._timeline.lap(Activity.WAIT, layer)
        parts = self._decode(frames, layer)
        with self.losses.changed:
            left_out = [sender for sender in self._route.senders if sender not in parts]
            self.losses.require_enough(layer, left_out)
        if self._keeps_rows:
            for sender, rows in parts.items():
                self._received.setdefault(sender, {})[layer] = rows
        parts |= {sender: cached.rows[layer] for sender, cached in self._cached.items()}
        self.arrivals = self._arrivals(layer, begun, frames, parts)
        placed = [
            place_rows(parts[sender], self._state.member(sender), self._rotaries[layer])
            for sender in sorted(parts)
        ]
        self._timeline.lap(Activity.DECODE, layer)
        return placed

    def _pop_frames(self, layer: int) -> dict[int, ReceivedFrame]:
        return {
            sender: frame
            for sender in self._route.senders
            if (frame := self._frames.pop((sender, layer), None)) is not None
            and sender not in self.losses.late
        }

    def _arrivals(
        self,
        layer: int,
        begun: float,
        frames: Mapping[int, ReceivedFrame],
        parts: Mapping[int, HeadRows],
    ) -> tuple[Arrival, ...]:
        return tuple(
            Arrival(
                node_id=self._state.member(sender).node_id,
                num_rows=parts[sender].rows_a_head,
                num_bytes=frames[sender].header.frame_size if sender in frames else 0,
                wait_s=max(0.0, self._came_at.pop((sender, layer), begun) - begun),
            )
            for sender in sorted(parts)
        )

    def _decode(self, frames: dict[int, ReceivedFrame], layer: int) -> dict[int, HeadRows]:
        """Rows by sender; one whose rows cannot be read is left out from here on."""
        parts: dict[int, HeadRows] = {}
        for sender, frame in frames.items():
            try:
                parts[sender] = self._read(sender, frame)
            except FrameError as error:
                with self.losses.changed:
                    self.losses.leave_out(sender, layer, str(error))
        return parts

    def _read(self, sender: int, frame: ReceivedFrame) -> HeadRows:
        frame = self._sealing.open(sender, frame)
        member = self._state.member(sender)
        rows = read_frame(frame, member, self._state.shape, self._rotaries[frame.header.layer])
        self._bounds.check(rows, frame.header.layer, member.node_id)
        return rows

    def _culprits(self, missing: list[int]) -> list[int]:
        """Those that cannot be waiting for another missing one themselves."""
        routes = self._state.routes
        return [
            sender
            for sender in missing
            if not routes[sender].receives or not set(routes[sender].senders) & set(missing)
        ]

    def received(self) -> dict[int, dict[int, HeadRows]]:
        """Rows by sender and layer of those whose every layer came, if rows are kept at all."""
        return {
            sender: rows
            for sender, rows in self._received.items()
            if rows.keys() == self._route.receives
        }

    def _missing(self, layer: int) -> list[int]:
        return [
            sender
            for sender in self._route.senders
            if not self.losses.is_out(sender) and (sender, layer) not in self._frames
        ]
