"""The gateway's page in a real browser."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from fastapi import FastAPI
from playwright.async_api import Browser, expect

from fedattn.cli.approvals_api import create_app as owner_app
from fedattn.core.address import HostPort
from fedattn.core.consent import Ask
from fedattn.core.errors import PolicyRefusedError
from fedattn.runtime.api_keys import ApiKey, KeyFile
from fedattn.runtime.approvals import ApprovalStore, Decision
from fedattn.runtime.audit import AuditEvent, AuditLog
from fedattn.runtime.listening import open_listeners
from fedattn.runtime.serving import serve_app
from fedattn.runtime.state import AUDIT_FILE
from gateway.app import create_app
from tests.harness.browser import DESKTOP, PHONE, Watched, browsing, running_browser
from tests.harness.gateway import (
    ANSWER,
    QUESTION,
    FakeParticipant,
    Gate,
    Script,
    failing,
    make_settings,
    running,
)
from tests.harness.networks import running_network
from tests.harness.tiny import tiny_model, words

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as running_one:
        yield running_one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A gateway before a tiny network."""
    folder = tmp_path_factory.mktemp("page")
    async with running_network(tiny_model("llama"), folder) as network:
        async with serving(create_app(make_settings(network.aggregator))) as url:
            yield url


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    listeners = open_listeners(HostPort("127.0.0.1", 0))
    stopping = asyncio.Event()
    task = asyncio.create_task(serve_app(app, listeners, stopping, 0))
    yield f"http://127.0.0.1:{listeners[0].getsockname()[1]}"
    stopping.set()
    await task


@asynccontextmanager
async def page_before(
    browser: Browser, script: Script | None = None, flags: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Watched, FakeParticipant]]:
    """The page of a gateway whose publisher follows a script."""
    async with running(script, flags=flags) as gateway:
        app = create_app(make_settings(str(gateway.address), flags=flags))
        async with serving(app) as url, browsing(browser, url) as watched:
            yield watched, gateway.participant


async def ask(watched: Watched, question: str = QUESTION) -> None:
    await watched.page.get_by_label("Your question").fill(question)
    await watched.page.get_by_role("button", name="Ask", exact=True).click()


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")]
)
async def test_a_question_is_answered_and_its_session_is_shown(
    browser: Browser, network_url: str, size: tuple[int, int], scheme: str
) -> None:
    async with browsing(browser, network_url, size, color_scheme=scheme) as watched:
        page = watched.page
        await expect(page.locator("#nodes h3")).to_have_text(["node-0", "node-1", "publisher"])
        await page.get_by_text("Who answers, and how").click()
        await page.get_by_label("Plan").fill("all")
        await page.get_by_label("Use rows cached").uncheck()
        await page.get_by_label("Most tokens").fill("5")
        await ask(watched, words(60, 4))
        await expect(page.get_by_role("status")).to_have_text("done")
        await expect(page.locator("#answer")).not_to_be_empty()
        await expect(page.locator(".lane .name")).to_have_text(["node-0", "node-1", "publisher"])
        await expect(page.locator(".lane").first.locator(".cell.came")).to_have_count(5)
        await expect(page.locator("#revealed")).to_contain_text("read by node-1 and publisher")
        await expect(page.locator("#revealed")).to_contain_text("It was told the question")
        await expect(page.locator("#bytes canvas")).to_be_visible()
        await expect(page.locator("#timeline .gantt")).to_have_count(3)
        await page.get_by_role("button", name="Ask the publisher alone").click()
        await expect(page.locator("#alone")).not_to_be_empty()
        await expect(page.get_by_role("status")).to_have_text("done")
        for details in await page.locator("#report summary").all():
            await details.click()
        await watched.check_accessible()
        watched.check_behaviour()
        assert await page.evaluate("localStorage.length + sessionStorage.length") == 0


async def test_the_keyboard_is_enough(browser: Browser) -> None:
    gate = Gate()
    async with page_before(browser, gate) as (watched, participant):
        page, keys = watched.page, watched.page.keyboard
        await expect(page.locator("#nodes h3")).to_have_count(2)
        await keys.press("Tab")
        await expect(page.get_by_role("link", name="To the question")).to_be_focused()
        await keys.press("Enter")
        await expect(page.get_by_label("Your question")).to_be_focused()
        await keys.type(QUESTION)
        await keys.press("Tab")
        await keys.press("Enter")
        stop = page.get_by_role("button", name="Stop")
        await expect(stop).to_be_focused()
        await expect(page.locator(".lane")).to_have_count(2)
        await keys.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("stopped")
        await participant.cancelled.wait()
        await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_focused()
        gate.open.set()
        await keys.press("Enter")
        await expect(page.locator("#facts")).to_be_visible()
        await page.get_by_role("button", name="dark theme").focus()
        await keys.press("Enter")
        assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
        watched.check_behaviour()


async def test_who_has_to_sign_in_is_asked_for_a_key(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = KeyFile(path).create(
        lambda key_id, sha256: ApiKey.model_validate(
            {"id": key_id, "name": "anna", "sha256": sha256, "created_at": 0.0}
            | {"queries_per_minute": 1}
        )
    )
    async with page_before(browser, flags=(f"--keys={path}",)) as (watched, participant):
        page = watched.page
        field = page.get_by_label("API key")
        await expect(field).to_be_focused()
        await expect(page.get_by_label("Your question")).to_be_hidden()
        await watched.check_accessible()
        await field.fill("fa_000000000000_" + "A" * 43)
        await field.press("Enter")
        await expect(page.locator("#signing-why")).to_contain_text("not good here")
        await field.fill(key)
        await field.press("Enter")
        await expect(page.locator("#nodes h3")).to_have_count(2)
        await ask(watched)
        await expect(page.locator("#answer")).to_have_text(ANSWER)
        await ask(watched)
        await expect(page.get_by_role("alert").last).to_contain_text("Try again in")
        assert await page.evaluate("Object.values(sessionStorage)") == [key]
        assert await page.evaluate("localStorage.length") == 0
        assert [request.options.subject for request in participant.requests] == ["anna"]
        await page.get_by_role("button", name="Sign out").click()
        await expect(field).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0
        assert watched.origins == {watched.url}


async def test_what_goes_wrong_is_said(browser: Browser) -> None:
    error = PolicyRefusedError("node-a allows nobody at night; ask by day")
    async with page_before(browser, failing(error)) as (watched, _):
        await ask(watched)
        await expect(watched.page.get_by_role("alert").last).to_contain_text("ask by day")
        await expect(watched.page.get_by_role("status")).to_have_text("no answer")


async def test_a_stream_that_breaks_off_is_said(browser: Browser) -> None:
    async with page_before(browser) as (watched, _):
        await expect(watched.page.locator("#nodes h3")).to_have_count(2)
        await watched.page.evaluate(
            """window.fetch = async () => new Response(new ReadableStream({
                 start(stream) { stream.error(new TypeError("network error")); } }))"""
        )
        await ask(watched)
        await expect(watched.page.get_by_role("alert").last).to_contain_text("Cut off")
        watched.check_behaviour()


async def test_one_question_runs_at_a_time(browser: Browser) -> None:
    gate = Gate()
    async with page_before(browser, gate) as (watched, participant):
        page = watched.page
        await ask(watched)
        await expect(page.locator(".lane")).to_have_count(2)
        await page.get_by_label("Your question").press("Control+Enter")
        gate.open.set()
        await expect(page.get_by_role("status")).to_contain_text("done")
        assert len(participant.requests) == 1


async def test_a_key_half_typed_outlives_a_look_elsewhere(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    KeyFile(path).create(
        lambda key_id, sha256: ApiKey.model_validate(
            {"id": key_id, "name": "anna", "sha256": sha256, "created_at": 0.0}
        )
    )
    async with page_before(browser, flags=(f"--keys={path}",)) as (watched, _):
        field = watched.page.get_by_label("API key")
        await field.fill("fa_half")
        asked: list[str] = []
        watched.page.on("request", lambda request: asked.append(request.url))
        await watched.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await field.press("End")
        await expect(field).to_have_value("fa_half")
        assert asked == []


async def test_an_owner_decides_and_reads_the_log(browser: Browser, tmp_path: Path) -> None:
    store, log = ApprovalStore(tmp_path), AuditLog(tmp_path / AUDIT_FILE)
    for subject in ("anna", "bert"):
        store.use(
            Ask(
                publisher="desk",
                subject=subject,
                purpose="<b>rounds</b>",
                layers=(7, 9),
                num_rows=96,
                num_bytes=18_816,
                session_id="s",
            )
        )
    log.append(AuditEvent(event="sent", publisher="desk", blocks=(7, 9), rows=96, bytes=18_816))
    log.close()
    app = owner_app(store, HostPort("127.0.0.1", 0), "0123456789abcdef")
    async with serving(app) as url, browsing(browser, url, PHONE) as watched:
        page = watched.page
        await page.get_by_label("Token").fill("0123456789abcdef")
        await page.keyboard.press("Enter")
        asks = page.locator(".ask")
        await expect(asks).to_have_count(2)
        await expect(asks.first).to_contain_text("<b>rounds</b>")
        await expect(page.locator("#chain")).to_contain_text("1 entry, an unbroken chain")
        await expect(page.locator("#entries td").first).to_have_text("1")
        await asks.first.get_by_label("Sessions").fill("3")
        await asks.first.get_by_role("button", name="Approve").click()
        await expect(asks).to_have_count(1)
        await asks.first.get_by_role("button", name="Deny").click()
        await expect(asks).to_have_count(0)
        await expect(page.get_by_role("status")).to_have_text("Denied: desk for bert")
        decided = {entry.subject: (entry.decision, entry.uses_left) for entry in store.entries()}
        assert decided == {"anna": (Decision.APPROVED, 3), "bert": (Decision.DENIED, 0)}
        await watched.check_accessible()
        path = tmp_path / AUDIT_FILE
        path.write_bytes(path.read_bytes().replace(b"desk", b"disk") * 2)
        await page.get_by_role("button", name="Read again").click()
        await expect(page.locator("#chain")).to_contain_text("breaks the chain")
        assert watched.origins == {watched.url}
