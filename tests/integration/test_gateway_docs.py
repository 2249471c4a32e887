"""The interactive page works without any other origin."""

import re

from tests.harness.gateway import running

_URL = re.compile(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""")


async def test_the_page_takes_all_its_parts_from_the_gateway() -> None:
    async with running() as gateway:
        page = await gateway.client.get("/docs")
        urls = _URL.findall(page.text)
        parts = [await gateway.client.get(url) for url in urls]
    assert page.status_code == 200
    assert "://" not in page.text
    assert len(urls) >= 4  # script, style, icon, document
    assert [part.status_code for part in parts] == [200] * len(urls)
    assert all(len(part.content) > 500 for part in parts)


async def test_style_and_script_load_nothing_from_elsewhere() -> None:
    async with running() as gateway:
        style = await gateway.client.get("/static-offline-docs/swagger-ui.css")
    assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//", style.text)
