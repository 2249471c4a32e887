"""The programs of `examples/` are answered by a gateway, and their networks can be started."""

import asyncio
import re
import runpy
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.async_api import expect
from structlog.testing import capture_logs

from fedattn.cli.federation_file import read_federation
from fedattn.rest.query import QueryBody
from fedattn.texts.listing import list_files
from fedattn.texts.pieces import cut_file
from tests.harness.browser import browsing, running_browser
from tests.harness.codebase import ROOT
from tests.harness.gateway import ANSWER, QUESTION, Harness, running, served

EXAMPLES = ROOT / "examples"
NETWORKS = sorted(EXAMPLES.glob("*/federation.toml"))
PAGE = EXAMPLES / "clinic" / "page" / "index.html"


async def run(name: str, *args: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, Harness]:
    """What an example's program prints when it asks a gateway, and that gateway."""
    async with running() as gateway, served(gateway) as (url, _):
        program = EXAMPLES / name
        with pytest.MonkeyPatch.context() as patch, capture_logs():  # the gateway's are no output
            patch.setattr(sys, "argv", [str(program), url, *args])
            await asyncio.to_thread(runpy.run_path, str(program), run_name="__main__")
        return capsys.readouterr().out, gateway


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.parent.name)
def test_a_network_has_an_asker_without_text_and_reads_all_its_texts(path: Path) -> None:
    asker, *nodes = read_federation(path).nodes()
    assert asker.context is None
    assert len(nodes) == 3
    for node in nodes:
        assert node.context is not None
        found = list_files(node.context)
        assert (len(found.files) >= 2, found.skipped) == (True, [])
        assert all(list(cut_file(file.path)) for file in found.files)


async def test_the_plant_is_asked_why_three_times(capsys: pytest.CaptureFixture[str]) -> None:
    printed, gateway = await run("plant/why.py", capsys=capsys)
    asked = [request.question for request in gateway.participant.requests]
    assert [question.split()[0] for question in asked] == ["Why"] * 3
    assert [line.strip() for line in printed.splitlines()][0:2] == [asked[0], ANSWER]
    assert "0 kB of rows travelled" in printed


async def test_the_junction_prints_the_answer_of_a_stream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed, gateway = await run("junction/stream.py", capsys=capsys)
    assert printed.splitlines() == [gateway.participant.requests[0].question, ANSWER]


@pytest.mark.skipif(
    find_spec("langchain_openai") is None,
    reason="needs `pip install langchain-openai`, which is no requirement of this project",
)
async def test_langchain_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    printed, gateway = await run("langchain_chat.py", "publisher", QUESTION, capsys=capsys)
    assert printed.strip() == ANSWER
    assert gateway.participant.requests[0].question == QUESTION


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("question", ["", 'Which ward had "it", and when?'])
async def test_the_household_is_asked_with_curl(question: str) -> None:
    printed, errors, code, gateway = await ask_household(*[question] if question else [])
    asked = gateway.participant.requests[0].question
    assert (code, errors) == (0, "")
    assert printed.splitlines() == [asked, ANSWER]
    assert question in {"", asked}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_household_is_told_why_there_is_no_answer() -> None:
    printed, errors, code, _ = await ask_household("?" * 40_000)
    assert (printed, code) == ("", 1)
    assert "at most 32768 characters" in errors


async def ask_household(*args: str) -> tuple[str, str, int | None, Harness]:
    """What the script prints, its errors, its exit code, and the gateway it asked."""
    async with running() as gateway, served(gateway) as (url, _):
        process = await asyncio.create_subprocess_exec(
            str(EXAMPLES / "household" / "ask.sh"), url, *args,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed, errors = await process.communicate()
    return printed.decode(), errors.decode(), process.returncode, gateway


def test_the_clinics_page_asks_with_fields_that_there_are() -> None:
    page = PAGE.read_text()
    assert "/v1/queries`" in page
    asked = re.search(r"JSON\.stringify\(\{(.*)\}\)", page)
    assert asked is not None
    fields = re.findall(r"(\w+):", asked[1])
    assert set(fields) == {"question", "stream", "sampling", "max_new_tokens"}
    assert set(fields) - {"max_new_tokens"} <= QueryBody.model_fields.keys()


async def test_the_clinics_gateway_lets_the_page_ask_and_no_other() -> None:
    origin = read_federation(EXAMPLES / "clinic" / "federation.toml").gateway.cors_origin
    async with running(flags=[f"--cors-origin={origin}"]) as gateway:
        ask = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        for page, status in ((origin, 200), ("http://127.0.0.1:8081", 400)):
            headers = {"Origin": page or "", **ask}
            answer = await gateway.client.options("/v1/queries", headers=headers)
            assert answer.status_code == status


async def test_the_clinics_page_shows_the_answer_and_who_took_part() -> None:
    with serving_files(PAGE.parent) as origin:
        async with (
            running(flags=[f"--cors-origin={origin}"]) as gateway,
            served(gateway) as (url, _),
            running_browser() as browser,
            browsing(browser, origin) as watched,
        ):
            await watched.page.get_by_label("Gateway").fill(url)
            await watched.page.get_by_role("button", name="Ask").click()
            await expect(watched.page.locator("#who")).to_have_text("took part: nobody")
            await expect(watched.page.locator("#answer")).to_have_text(ANSWER)
            await watched.check_accessible()
    assert watched.console == []


@contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """The origin at which a folder's files are."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
