"""Running a service from start to SIGTERM."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from fedattn.core.errors import FedAttnError
from fedattn.runtime.supervision import keep_watchdog_quiet, notify_stopping


def run_service(serve: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `serve` until it ends or SIGTERM or SIGINT sets the event it is given.

    Returns:
        Exit code: 0 after a clean stop, 1 after an error, which is printed.
    """

    async def main() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        watchdog = asyncio.create_task(keep_watchdog_quiet())
        try:
            await serve(stopping)
        finally:
            notify_stopping()
            watchdog.cancel()

    try:
        asyncio.run(main())
    except FedAttnError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
