"""Telling systemd that a service is ready, alive and stopping; silent where nobody listens."""

import asyncio
import os

from sdnotify import SystemdNotifier

_NOTIFIER = SystemdNotifier()


def notify_ready() -> None:
    """The service can do its work; called once."""
    _NOTIFIER.notify("READY=1")


def notify_stopping() -> None:
    """The service ends by itself, within its grace."""
    _NOTIFIER.notify("STOPPING=1")


async def keep_watchdog_quiet() -> None:
    """Say that the event loop turns, twice in each of systemd's watchdog periods."""
    period_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    while period_us > 0:
        _NOTIFIER.notify("WATCHDOG=1")
        await asyncio.sleep(period_us / 2e6)
