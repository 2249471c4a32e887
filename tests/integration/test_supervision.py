"""What a service tells systemd."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "flags",
    [
        ["services.aggregator", "--listen=127.0.0.1:0"],
        ["gateway", "--listen=127.0.0.1:0"],
    ],
    ids=["aggregator", "gateway"],
)
async def test_service_is_ready_then_alive_then_stopping(flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "50000"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *flags, "--plaintext", stderr=PIPE, env=environment
        )
        for expected in (b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"):
            while await loop.sock_recv(listener, 100) != expected:
                pass
        process.send_signal(signal.SIGTERM)
        while await loop.sock_recv(listener, 100) != b"STOPPING=1":
            pass
        _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
