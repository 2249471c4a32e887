"""Running a service from its settings to SIGTERM."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import FrameType
from typing import Any, NoReturn, TypeVar

from fedattn.core.errors import ConfigurationError, FedAttnError
from fedattn.runtime.logging import configure_logging
from fedattn.runtime.settings import ServiceSettings
from fedattn.runtime.supervision import keep_watchdog_quiet, notify_stopping
from fedattn.runtime.telemetry import exporting_traces

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")

BAD_SETTING, FAILED = 2, 1
_STDERR = 2
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_main(
    settings_class: type[S],
    serve: Callable[[S, asyncio.Event], Awaitable[None]],
    check: Callable[[S], None] = lambda _: None,
) -> int:
    """What every service does: read settings, write logs, serve until SIGTERM or SIGINT.

    Args:
        settings_class: of the service.
        serve: runs it, until it ends by itself or the event is set.
        check: of settings together with this machine; raises ConfigurationError.

    Returns:
        Exit code: 0 after a clean stop, 1 after an error, 2 for a bad setting. Errors are printed.
    """
    try:
        settings = settings_class.load()
        check(settings)
        configure_logging(settings.log_level, settings.log_format, settings.log_name)
        with exporting_traces(settings.log_name):
            return run_service(lambda stopping: serve(settings, stopping))
    except ConfigurationError as error:
        return _report(error, BAD_SETTING)


def run_service(serve: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `serve` until it ends or SIGTERM or SIGINT sets the event it is given.

    A second signal ends the process at once, whatever it does, with exit code 128 + its number.

    Returns:
        Exit code: 0 after a clean stop, 1 after an error, which is printed.
    """

    async def main() -> None:
        stopping = asyncio.Event()
        _stop_on_signals(asyncio.get_running_loop(), stopping)
        watchdog = asyncio.create_task(keep_watchdog_quiet())
        try:
            await serve(stopping)
        finally:
            notify_stopping()
            watchdog.cancel()

    try:
        asyncio.run(main())
    except FedAttnError as error:
        return _report(error, FAILED)
    return 0


def end_process(code: int) -> NoReturn:
    """End without the interpreter's tidying up, which frees torch piece by piece for seconds.

    It would also wait for threads that compute what nobody will ask for. Services close what
    others see (streams, sockets, files) before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def run_unless_stopped(stopping: asyncio.Event, work: Callable[[], T]) -> T | None:
    """The result of blocking work in a thread; None, with the work left behind, if told to stop.

    The thread is not of the event loop's own, which would wait for it at its end.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="starting")
    working = asyncio.get_running_loop().run_in_executor(
        thread,
        copy_context().run,
        work,  # which names the service in the log
    )
    stop = asyncio.ensure_future(stopping.wait())
    waiting: set[asyncio.Future[Any]] = {working, stop}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        stop.cancel()
        thread.shutdown(wait=False)


def _stop_on_signals(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Not by the loop's own handlers: a second signal must count where the loop is stuck."""
    is_told = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal is_told
        if is_told:
            os.write(_STDERR, b"told twice to stop: ends at once\n")
            os._exit(128 + number)
        is_told = True
        loop.call_soon_threadsafe(stopping.set)

    for number in _SIGNALS:
        signal.signal(number, on_signal)


def _report(error: FedAttnError, code: int) -> int:
    print(f"error [{error.code}]: {error}", file=sys.stderr, flush=True)
    return code
