"""`python -m gateway` as a process."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.gateway import ANSWER, QUESTION, running


async def start(*flags: str, **environment: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *flags, stderr=PIPE, env={**os.environ, **environment}
    )


async def read_entry(process: Process, event: str) -> dict[str, Any]:
    assert process.stderr is not None
    async for line in process.stderr:
        entry: dict[str, Any] = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"the gateway ended without logging {event}")


async def test_serves_then_stops_with_0_on_sigterm_and_logs_nothing_private() -> None:
    async with running() as gateway:
        process = await start(
            "--listen=127.0.0.1:0",
            "--plaintext",
            "--log-format=json",
            "--log-level=debug",
            FEDATTN_GATEWAY_AGGREGATOR=str(gateway.address),
        )
        port = (await read_entry(process, "serving"))["port"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/readyz")).status_code == 200
            for stream in (False, True):
                body = {"question": QUESTION, "stream": stream}
                assert ANSWER in (await client.post("/v1/queries", json=body)).text
            await client.post("/v1/queries", json={"question": QUESTION, "plan": "often"})
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
    assert process.returncode == 0
    assert b"invalid_plan" in log
    assert QUESTION.encode() not in log
    assert ANSWER.encode() not in log


async def test_taken_port_is_an_error_of_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start(f"--listen=127.0.0.1:{port}", "--plaintext")
        _, log = await process.communicate()
    assert process.returncode == 1
    prefix = f"error [configuration]: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert log.decode().splitlines()[-1].startswith(prefix)
    assert b"Traceback" not in log


async def test_plaintext_must_be_asked_for() -> None:
    process = await start("--listen=127.0.0.1:0")
    _, log = await process.communicate()
    assert process.returncode == 1
    assert b"no certificates: give --certificates DIR" in log


async def test_malformed_setting_refuses_to_start() -> None:
    process = await start("--aggregator=nowhere")
    _, log = await process.communicate()
    assert process.returncode == 2
    assert b"FEDATTN_GATEWAY_AGGREGATOR (--aggregator)" in log


EVERYWHERE = ["--listen=0.0.0.0:0", "--plaintext"]


async def test_beyond_the_loopback_it_asks_for_sign_in() -> None:
    process = await start(*EVERYWHERE)
    _, log = await process.communicate()
    assert process.returncode == 1
    assert b"anyone could ask there; let callers sign in with --keys" in log


@pytest.mark.parametrize("flag", ["--open", "--keys={keys}"])
async def test_beyond_the_loopback_it_serves_with_sign_in_or_if_told_so(
    flag: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text("[]")
    process = await start(*EVERYWHERE, flag.format(keys=keys), "--log-format=json")
    await read_entry(process, "serving")
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0
