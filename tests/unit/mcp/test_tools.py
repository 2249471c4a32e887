"""An agent gets answers, progress, and errors it can act on; through MCP's own client."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import httpx
import pytest
from mcp import Client as McpClient
from mcp import StdioServerParameters
from mcp_types import TextContent

from fedattn.client import AsyncClient
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.core.report import NodeState
from fedattn.mcp.progress import Progress
from fedattn.mcp.server import make_server
from fedattn.mcp.serving import PATH, check_near, make_app
from fedattn.rest.events import QueuedEvent, SessionEvent, SessionMember
from fedattn.rest.participants import ParticipantInfo
from tests.harness.answers import sample_answer
from tests.unit.client.gateways import EVENTS, JSON, Said, answering, events, problem

SESSION = SessionEvent(
    session_id="5f2b7c1e9a",
    prefix_len=24,
    num_layers=30,
    row_bytes=768,
    members=[
        SessionMember(
            node_id=name,
            role=role,
            span_start=0,
            span_stop=3,
            sync_layers=[7, 9] * (name == "desk"),
        )
        for name, role in (("ward-1", "contributor"), ("desk", "publisher"))
    ],
    excluded=[],
)
STREAM = events(
    ("session", SESSION.model_dump_json()),
    ("layer", '{"layer": 7, "num_rows": 3, "wait_s": 0.5, "arrivals": []}'),
    ("layer", '{"layer": 9, "num_rows": 3, "wait_s": 0.5, "arrivals": []}'),
    ("token", '{"text": "Pier"}'),
    ("report", sample_answer().model_dump_json()),
)
NODE = ParticipantInfo(
    node_id="ward-1",
    model_name="m",
    model_fingerprint="9f",
    num_layers=30,
    max_positions=8192,
    active_sessions=0,
    joined_for_s=1.5,
    can_publish=False,
    health=None,
    warnings=[],
    state=NodeState.GOOD,
    state_reason="",
    rests_for_s=0.0,
    context_tokens=7,
    context_passages=1,
    context_files=1,
    skipped_files={},
)
Mode = Literal["legacy", "auto"]


@asynccontextmanager
async def agent(
    said: Said, mode: Mode = "auto"
) -> AsyncIterator[tuple[McpClient, list[httpx.Request]]]:
    """An agent's session with the tools, before a gateway that says one thing."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        headers = {"Content-Type": said.media_type, **said.headers}
        return httpx.Response(said.status, headers=headers, text=said.content)

    async with AsyncClient(retries=0, transport=httpx.MockTransport(answer)) as client:
        async with McpClient(make_server(client), mode=mode) as session:
            yield session, sent


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_answer_comes_structured_with_who_took_part(mode: Mode) -> None:
    async with agent(Said(content=STREAM), mode) as (session, sent):
        result = await session.call_tool(
            "ask_federation", {"question": "Which pier?", "contributors": ["ward-1"]}
        )
    assert not result.is_error
    answer, expected = result.structured_content or {}, sample_answer()
    assert answer["answer"] == expected.answer
    assert answer["finish_reason"] == expected.finish_reason
    assert answer["session_id"] == expected.session_id
    assert [one["node_id"] for one in answer["participants"]] == [
        one.node_id for one in expected.participants
    ]
    assert answer["sources"] == [one.model_dump() for one in expected.sources]
    (request,) = sent
    body = json.loads(request.content)
    assert (body["question"], body["contributors"], body["plan"]) == (
        "Which pier?",
        ["ward-1"],
        "auto",
    )


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_progress_is_told_to_whoever_asks_for_it(mode: Mode) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async with agent(Said(content=STREAM), mode) as (session, _):
        arguments = {"question": "Which pier?", "max_new_tokens": 8}
        await session.call_tool("ask_federation", arguments, progress_callback=note)
    assert told == [
        (0, 10, "asking ward-1, desk"),
        (1, 10, "block 7: 3 rows of the others"),
        (2, 10, "block 9: 3 rows of the others"),
        (3, 10, "writing the answer"),
    ]


async def test_nodes_are_listed() -> None:
    said = Said(content=f"[{NODE.model_dump_json()}]", media_type=JSON)
    async with agent(said) as (session, _):
        result = await session.call_tool("list_nodes")
    assert result.structured_content == {"nodes": [NODE.model_dump(mode="json")]}


@pytest.mark.parametrize("tool", ["ask_federation", "list_nodes"])
async def test_a_problem_is_an_error_that_says_what_to_do(tool: str) -> None:
    refusal = problem(401, "not_signed_in", "this gateway asks who you are; send a key")
    async with agent(refusal) as (session, _):
        arguments = {"question": "Which pier?"} if tool == "ask_federation" else {}
        result = await session.call_tool(tool, arguments)
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    assert content.text.endswith("[not_signed_in] this gateway asks who you are; send a key")


async def test_what_no_gateway_would_take_is_not_sent() -> None:
    async with agent(Said(content=STREAM)) as (session, sent):
        result = await session.call_tool("ask_federation", {"question": "  "})
        assert result.is_error
    assert sent == []


async def test_tools_describe_themselves() -> None:
    async with agent(Said(content="")) as (session, _):
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert tools.keys() == {"ask_federation", "list_nodes"}
    ask = tools["ask_federation"]
    assert ask.annotations is not None
    assert ask.annotations.read_only_hint
    assert ask.input_schema["required"] == ["question"]
    assert all("description" in entry for entry in ask.input_schema["properties"].values())
    assert {"answer", "finish_reason", "participants", "sources", "session_id"} <= set(
        (ask.output_schema or {})["properties"]
    )


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8001"}, 200),
        ({"Host": "localhost:8001", "Origin": "http://localhost:8001"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8001"}, 421),
        ({"Host": "127.0.0.1:8001", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:8001", "Origin": "null"}, 403),
    ],
)
async def test_no_page_of_another_site_is_answered(headers: dict[str, str], status: int) -> None:
    async with AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(500))) as client:
        server = make_server(client)
        app = make_app(server, HostPort("127.0.0.1", 8001))
        transport = httpx.ASGITransport(app)
        async with server.session_manager.run():
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as browser:
                accept = {"Accept": f"{JSON}, {EVENTS}"}
                response = await browser.post(PATH, json=INITIALIZE, headers=accept | headers)
    assert response.status_code == status


@pytest.mark.parametrize("address", ["0.0.0.0:8001", "[::]:8001", "192.168.1.7:8001", "desk:8001"])
def test_others_may_not_ask_over_http(address: str) -> None:
    with pytest.raises(ConfigurationError, match="in your name"):
        check_near(HostPort.parse_listening(address))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:8001", "localhost:8001"])
def test_this_machine_may(address: str) -> None:
    assert str(check_near(HostPort.parse_listening(address))) == address


async def test_a_program_that_starts_the_command_speaks_with_it_by_its_pipes() -> None:
    with answering(Said(content=STREAM)) as gateway:
        arguments = ["-m", "fedattn.cli.main", "mcp", "--gateway", gateway.url]
        command = StdioServerParameters(command=sys.executable, args=arguments)
        async with McpClient(command) as session:
            result = await session.call_tool("ask_federation", {"question": "Which pier?"})
    assert (result.structured_content or {})["answer"] == sample_answer().answer


async def test_an_agent_hears_where_its_question_stands_in_the_line() -> None:
    heard: list[tuple[float, str | None]] = []

    async def report(
        progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        heard.append((progress, message))

    await Progress(report, 64).tell(QueuedEvent(place=3, of=7, estimate_s=None))
    assert heard == [(0, "waiting: 3 of 7")]
