"""What one member sends on its exchange: keys, frames, pieces of an asked one, its last word."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future

import structlog

from fedattn.core.chunks import split_frame
from fedattn.core.errors import FedAttnError, InternalError
from fedattn.core.session import SessionState
from fedattn.core.timeline import Activity, Timeline
from fedattn.wire.exchange import decline_of, write_chunk
from fedattn.wire.timeline import timeline_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.losses import Losses
from services.participant.sealing import Sealing

log = structlog.get_logger(__name__)

MAX_FRAMES_IN_FLIGHT = 4
_NOT_WRITTEN = "its rows could not be written; see its log"
_Outgoing = tuple[int, Future[bytes]] | pb.ExchangeRequest | pb.MemberDone | pb.Decline | None
"""(layer, frame being encoded), a piece, the last word, why there is none, or the end."""


class Uplink:
    """Takes what a member has to send from its model thread, and gives it to the call in order.

    It knows nothing of what is received: in a cycle the rows of a session would wait for the
    garbage collector.

    Args:
        state: routes and members of the session.
        index: place of the member.
        executor: encodes frames.
        sealing: of the session.
        losses: of the session.
        timeline: told what frames took.
        keeps_frames: whether frames that have left are kept.

    Attributes:
        bytes_sent: of the frames that have left, by layer.
        frames_sent: those that are kept, by layer.
        room_wait_s: time the model thread has waited for own rows to leave, seconds.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        state: SessionState,
        index: int,
        executor: Executor,
        *,
        sealing: Sealing,
        losses: Losses,
        timeline: Timeline,
        keeps_frames: bool,
    ) -> None:
        self._state, self._index, self._executor = state, index, executor
        self._sealing, self._losses, self._timeline = sealing, losses, timeline
        self._keeps_frames = keeps_frames
        self._loop = asyncio.get_running_loop()
        self._outgoing: asyncio.Queue[_Outgoing] = asyncio.Queue()
        self._in_flight = threading.BoundedSemaphore(MAX_FRAMES_IN_FLIGHT)
        self.bytes_sent: dict[int, int] = {}
        self.frames_sent: dict[int, bytes] = {}
        self.room_wait_s = 0.0

    # -- any thread ------------------------------------------------------------------------------

    def send(self, message: pb.ExchangeRequest) -> None:
        """Send a piece."""
        self._put(message)

    def _put(self, item: _Outgoing) -> None:
        self._loop.call_soon_threadsafe(self._outgoing.put_nowait, item)

    # -- model thread ----------------------------------------------------------------------------

    def make_room(self, layer: int) -> None:
        """Wait until one more frame may be on its way; `write` or `send_frame` follows.

        Raises:
            FedAttnError: the session has ended.
        """
        self._losses.check()
        self._timeline.lap(Activity.COMPUTE, layer)
        begun = time.monotonic()
        self._in_flight.acquire()  # released when the frame has left, or the session has ended
        self.room_wait_s += time.monotonic() - begun
        try:
            self._losses.check()  # the session may have ended meanwhile
        except FedAttnError:
            self._in_flight.release()
            raise
        self._timeline.lap(Activity.WAIT, layer)

    def write(self, layer: int, write: Callable[[], bytes]) -> None:
        """Have a frame written in the executor, and send it."""
        self._put((layer, self._executor.submit(write)))

    def send_frame(self, layer: int, frame: bytes) -> None:
        """Send a frame as it is."""
        encoded: Future[bytes] = Future()
        encoded.set_result(frame)
        self._put((layer, encoded))

    # -- event loop ------------------------------------------------------------------------------

    def finish(self, done: pb.MemberDone) -> None:
        """Send the last word, behind all that has not left yet."""
        self._outgoing.put_nowait(done)

    def fail(self, error: FedAttnError) -> None:
        """Say why this member cannot go on, behind nothing that has not left yet."""
        self._drop()
        self._outgoing.put_nowait(decline_of(error))

    async def requests(
        self, session_id: str, member_token: str
    ) -> AsyncIterator[pb.ExchangeRequest | bytes]:
        """All messages of the call, until the last word or `close`."""
        hello = pb.Hello(session_id=session_id, member_token=member_token)
        yield pb.ExchangeRequest(hello=hello)
        receivers = self._state.key_receivers(self._index)
        keys = self._loop.run_in_executor(self._executor, self._sealing.keys_for, receivers)
        for key in await keys:
            yield pb.ExchangeRequest(key=key)
        while (item := await self._outgoing.get()) is not None:
            if isinstance(item, pb.MemberDone):
                item.timeline.extend(timeline_to_wire(self._timeline.slices()))
                yield pb.ExchangeRequest(done=item)
                return
            if isinstance(item, pb.Decline):
                yield pb.ExchangeRequest(failed=item)
                return
            if isinstance(item, pb.ExchangeRequest):
                yield item
                continue
            layer, encoding = item
            try:
                frame = await self._encoded(encoding, session_id)
            except FedAttnError as error:
                yield pb.ExchangeRequest(failed=decline_of(error))
                return
            begin_s = self._timeline.now()
            self.bytes_sent[layer] = len(frame)
            for chunk in split_frame(frame, layer):
                yield write_chunk(chunk, self._index)
            self._timeline.add(Activity.SEND, layer, begin_s)
            if self._keeps_frames:
                self.frames_sent[layer] = frame
            self._in_flight.release()

    async def _encoded(self, encoding: Future[bytes], session_id: str) -> bytes:
        try:
            return await asyncio.wrap_future(encoding)
        except Exception as error:  # tell the model thread, and the others
            known = error if isinstance(error, FedAttnError) else InternalError(_NOT_WRITTEN)
            if known is not error:
                log.exception("encoding_failed", session=session_id)
            self._losses.end(known)
            raise known from error

    def close(self) -> None:
        """The call is over: drop what has not left, and end what waits to send."""
        self._drop()
        self._outgoing.put_nowait(None)  # ends `requests`, which the ended call no longer does
        self._release_all()

    def _drop(self) -> None:
        while not self._outgoing.empty():
            item = self._outgoing.get_nowait()
            if isinstance(item, tuple):
                item[1].cancel()

    def _release_all(self) -> None:
        """Let a model thread go on that waits in `make_room`."""
        for _ in range(MAX_FRAMES_IN_FLIGHT):
            try:
                self._in_flight.release()
            except ValueError:
                return
