"""HTTP/1.1 as uvicorn speaks it, with clients that are slow on purpose left behind."""

import asyncio
import socket
import struct
from types import MappingProxyType
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedattn.runtime.doors import Inside

HEAD_TIMEOUT_S = 10.0
"""A client sends the head of its first request within this, and of each later one."""
BODY_TIMEOUT_S = 30.0
"""And the body within this: 256 KiB at 70 kbit/s."""
TAKE_TIMEOUT_S = 30.0
"""What has left the application is with the client, or in buffers of both kernels, within this."""
MAX_HEAD_BYTES = 16 << 10
"""Of one request; `h11` stops reading there."""

_PHASES: MappingProxyType[Any, float] = MappingProxyType(
    {h11.IDLE: HEAD_TIMEOUT_S, h11.SEND_BODY: BODY_TIMEOUT_S}
)
"""What the client has to do, by the state that h11 has it in -> how long it may take."""
_RESET = struct.pack("ii", 1, 0)
"""Linger for no time (socket(7))."""


class PatientProtocol(H11Protocol, Inside):
    """Drops a connection whose client takes too long over a head, a body, or taking an answer.

    A deadline is of the whole head or body, so a client that sends a byte now and then gains
    nothing. A keep-alive connection that says nothing is closed by uvicorn, before.
    """

    _phase: Any = None
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._reading)
        _cancel(self._writing)
        super().connection_lost(exc)
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        _cancel(self._writing)
        self._writing = self._abort_after(TAKE_TIMEOUT_S)

    def resume_writing(self) -> None:
        _cancel(self._writing)
        super().resume_writing()

    def _watch(self) -> None:
        """Begin the deadline of what the client has to do now, unless it runs already."""
        phase = self.conn.their_state
        if phase is self._phase:
            return
        self._phase = phase
        _cancel(self._reading)
        timeout_s = _PHASES.get(phase)
        self._reading = None if timeout_s is None else self._abort_after(timeout_s)

    def _abort_after(self, timeout_s: float) -> asyncio.TimerHandle:
        return self.loop.call_later(timeout_s, self._abort)

    def _abort(self) -> None:
        """Drop the connection, and what the kernel would still try to send for minutes."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
