"""The pictures of docs/page.md: the page before the demo's network, in a real browser.

python -m benchmarks.screenshots
"""

import asyncio
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, expect

from benchmarks.blocks import ROOT
from fedattn.cli.demo import QUESTION
from fedattn.cli.network import free_port
from tests.harness.browser import DESKTOP, PHONE, browsing, running_browser

FOLDER = ROOT / "docs" / "pictures"
READY = "page: "
NUM_COLOURS = 128
"""Of a picture: enough for flat areas, at a third of the bytes."""


def start_demo(url: str) -> subprocess.Popen[str]:
    """The demo's network behind a gateway; returns once it answers."""
    command = [sys.executable, "-m", "fedattn.cli.main", "up", f"--port={url.rpartition(':')[2]}"]
    process = subprocess.Popen(  # noqa: S603 - our own words
        command, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if READY in line:
            return process
    raise SystemExit("the network did not start; try: fedattn up")


async def take(browser: Browser, url: str, path: Path, size: tuple[int, int], scheme: str) -> None:
    """One picture, of a question that nobody's rows are cached for."""
    async with browsing(browser, url, size, color_scheme=scheme) as watched:
        page = watched.page
        await expect(page.locator("#nodes h3")).not_to_have_count(0)
        choices = page.get_by_text("Who answers, and how")
        await choices.click()
        await page.get_by_label("Most tokens").fill("20")
        await page.get_by_label("Use rows cached").uncheck()
        await choices.click()
        await page.get_by_label("Your question").fill(QUESTION)
        await page.get_by_role("button", name="Ask", exact=True).click()
        await expect(page.get_by_role("status")).to_have_text("done")
        if size == DESKTOP:
            await page.get_by_role("button", name="Ask the publisher alone").click()
            await expect(page.locator("#alone")).not_to_be_empty()
            await expect(page.get_by_role("status")).to_have_text("done")
        await page.evaluate("document.activeElement.blur()")
        picture = Image.open(BytesIO(await page.screenshot(full_page=True)))
        picture.quantize(NUM_COLOURS).save(path, optimize=True)
        watched.check_behaviour()


async def main() -> None:
    """Take all three."""
    FOLDER.mkdir(exist_ok=True)
    url = f"http://127.0.0.1:{free_port()}"
    process = await asyncio.to_thread(start_demo, url)
    try:
        async with running_browser() as browser:
            await take(browser, url, FOLDER / "page-desktop.png", DESKTOP, "light")
            await take(browser, url, FOLDER / "page-dark.png", DESKTOP, "dark")
            await take(browser, url, FOLDER / "page-phone.png", PHONE, "light")
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    asyncio.run(main())
