"""From settings to the stop: what every service does."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from fedattn.core.errors import ConfigurationError
from fedattn.runtime import lifecycle
from fedattn.runtime.lifecycle import run_main, run_service, run_unless_stopped
from fedattn.runtime.settings import ListenAddress, ServiceSettings, service_config

SERVICE = """
import asyncio, os, signal, sys, threading
from fedattn.runtime import lifecycle
from fedattn.runtime.lifecycle import end_process, run_service

async def serve(stopping):
    print("serving", flush=True)
    await stopping.wait()
    print("stopping", flush=True)
    {stop}

end_process(run_service(serve))
"""
STUCK = {
    "in the event loop": "threading.Event().wait()",
    "in a task that cannot be cancelled": (
        "while True:\n        try: await asyncio.sleep(3600)\n        except BaseException: pass"
    ),
    "in the loop's own threads": "await asyncio.to_thread(threading.Event().wait)",
}


class WaitSettings(ServiceSettings):
    model_config = service_config("UNITWAIT_", "unit-wait")

    listen: ListenAddress | None = None


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """What run_service sets in this process does not outlive the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def started(stop: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE.format(stop=stop)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "serving\n"
    return process


def told_to_stop(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopping\n"


def test_one_signal_lets_it_end_with_0() -> None:
    process = started("pass")
    told_to_stop(process)
    process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("stop", STUCK.values(), ids=STUCK.keys())
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once_whatever_it_does(
    stop: str, second: signal.Signals
) -> None:
    process = started(stop)
    told_to_stop(process)
    process.send_signal(second)
    _, errors = process.communicate()
    assert process.returncode == 128 + second
    assert errors == "told twice to stop: ends at once\n"


def test_threads_that_still_compute_do_not_hold_up_the_end() -> None:
    process = started("threading.Thread(target=threading.Event().wait).start()")
    told_to_stop(process)
    process.communicate()
    assert process.returncode == 0


async def test_work_of_the_start_is_left_behind_when_told_to_stop() -> None:
    stopping, begun, release = asyncio.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def load() -> str:
        loop.call_soon_threadsafe(begun.set)
        release.wait()
        return "model"

    loading = asyncio.create_task(run_unless_stopped(stopping, load))
    await begun.wait()
    stopping.set()
    assert await loading is None
    release.set()


async def test_work_of_the_start_gives_its_result_or_its_error() -> None:
    def fail() -> str:
        raise ConfigurationError("no such folder")

    stopping = asyncio.Event()
    assert await run_unless_stopped(stopping, lambda: "model") == "model"
    with pytest.raises(ConfigurationError, match="no such folder"):
        await run_unless_stopped(stopping, fail)


async def test_work_of_the_start_logs_under_the_services_name() -> None:
    with structlog.contextvars.bound_contextvars(service="participant/a"):
        names = await run_unless_stopped(asyncio.Event(), structlog.contextvars.get_contextvars)
    assert names == {"service": "participant/a"}


def test_errors_are_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(_settings: WaitSettings, _stopping: asyncio.Event) -> None:
        raise ConfigurationError("the port is taken")

    monkeypatch.setattr(lifecycle, "configure_logging", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["unit-wait"])
    assert run_main(WaitSettings, fail) == 1
    assert capsys.readouterr().err == "error [configuration]: the port is taken\n"
    monkeypatch.setattr(sys, "argv", ["unit-wait", "--listen=localhost"])
    assert run_main(WaitSettings, fail) == 2
    assert capsys.readouterr().err == (
        "error [configuration]: UNITWAIT_LISTEN (--listen): expected HOST:PORT, got 'localhost'; "
        "add a port, such as localhost:50051\n"
    )


def test_a_signal_is_seen_by_serve() -> None:
    seen = []

    async def serve(stopping: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
        seen.append("stopping")

    assert run_service(serve) == 0
    assert seen == ["stopping"]
