"""A real browser, and what a page may do in it."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

expect.set_options(timeout=60_000)  # a slow machine is no failure

NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = (1280, 900), (375, 812)


@dataclass
class Watched:
    """A page, and what it said and asked for."""

    page: Page
    url: str
    console: list[str] = field(default_factory=list)
    origins: set[str] = field(default_factory=set)

    def check_behaviour(self) -> None:
        """It asked nobody else for anything, and reported no error."""
        assert self.origins == {self.url}
        assert self.console == []

    async def check_accessible(self) -> None:
        """The accessibility checker finds nothing, and nothing stands out to the right."""
        results = await Axe().run(self.page)
        assert results.violations_count == 0, results.generate_report()
        assert await self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def find_chromium() -> str:
    """Its path; skips the test where there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium here; install one: apt-get install --no-install-recommends chromium")


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """A browser without a window."""
    path = find_chromium()
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        await browser.close()


@asynccontextmanager
async def browsing(
    browser: Browser, url: str, size: tuple[int, int] = DESKTOP, **options: Any
) -> AsyncIterator[Watched]:
    """A new window, with storage of its own, at a URL.

    Args:
        browser: opens it.
        url: an origin; the page at `/` is opened.
        size: of the window, CSS pixels.
        options: of the browser's context, such as color_scheme.
    """
    viewport: Any = {"width": size[0], "height": size[1]}
    page = await browser.new_page(viewport=viewport, reduced_motion="reduce", **options)
    watched = Watched(page, url)
    page.on("request", lambda request: watched.origins.add(_origin(request.url)))
    page.on("pageerror", lambda error: watched.console.append(str(error)))
    page.on("console", lambda message: watched.console.append(message.text))
    await page.goto(url)
    try:
        yield watched
    finally:
        await page.close()


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
