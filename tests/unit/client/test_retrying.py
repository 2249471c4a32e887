"""A request is sent again only where nothing was done for it, and when the gateway wants it."""

import json
from email.utils import formatdate

import httpx
import pytest

from fedattn.client.retrying import (
    DEADLINE,
    AsyncRetryingTransport,
    RetryingTransport,
    retry_after_s,
)
from fedattn.core.errors import NodeBusyError
from tests.harness.answers import sample_answer
from tests.unit.client.gateways import Blocking, Said, answering, events, problem

NOT_NOW = problem(429, "node_busy", "node-a has no place", Retry_After="0")
NO_NODES = problem(503, "no_contributors", "nobody is joined", Retry_After="0")
ANSWER = Said(content=events(("report", sample_answer().model_dump_json())))
REQUEST = httpx.Request("POST", "http://gateway/v1/queries", json={"question": "Who?"})


def test_a_query_that_is_refused_for_now_is_asked_again(client: Blocking) -> None:
    with answering(NOT_NOW, NO_NODES, ANSWER) as gateway:
        assert client.call(gateway.url, "ask", "Who?", retries=2) == sample_answer()
    first, second, third = gateway.bodies
    deadlines = [body.pop("deadline_s") for body in (first, second, third)]
    assert first == second == third
    assert deadlines == sorted(deadlines, reverse=True)  # time passes


def test_it_is_asked_again_so_often_and_no_more(client: Blocking) -> None:
    with answering(NOT_NOW) as gateway, pytest.raises(NodeBusyError):
        client.call(gateway.url, "ask", "Who?", retries=2)
    assert len(gateway.lines) == 3


@pytest.mark.parametrize("status", [404, 500, 502, 504])
def test_what_may_have_been_worked_on_is_not_sent_again(client: Blocking, status: int) -> None:
    with answering(problem(status, "internal", "no", Retry_After="0")) as gateway:
        with pytest.raises(Exception, match="no"):
            client.call(gateway.url, "ask", "Who?", retries=2)
    assert len(gateway.lines) == 1


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (httpx.ConnectError("refused"), 3),
        (httpx.ConnectTimeout("nobody"), 3),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), 1),
        (httpx.ReadError("reset"), 1),
        (httpx.ReadTimeout("silence"), 1),
        (httpx.RemoteProtocolError("half an answer"), 1),
    ],
)
async def test_only_who_was_not_reached_is_called_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    slept: list[float] = []
    seen: list[httpx.Request] = []

    async def pause(seconds: float) -> None:
        slept.append(seconds)

    def fail(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        raise error

    transport = RetryingTransport(httpx.MockTransport(fail), 2)
    monkeypatch.setattr(transport._retrying, "sleep", slept.append)
    with pytest.raises(type(error)):
        transport.handle_request(REQUEST)
    both = AsyncRetryingTransport(httpx.MockTransport(fail), 2)
    monkeypatch.setattr(both._retrying, "sleep", pause)
    with pytest.raises(type(error)):
        await both.handle_async_request(REQUEST)
    assert len(seen) == 2 * tries
    assert len(slept) == 2 * (tries - 1)
    assert all(seconds <= 5 for seconds in slept)


def test_the_wait_is_the_one_that_the_gateway_asks_for() -> None:
    slept: list[float] = []
    answers = [
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(503, headers={"Retry-After": "3"}),
        httpx.Response(200),
    ]
    left = list(answers)
    transport = RetryingTransport(httpx.MockTransport(lambda _: left.pop(0)), 2)
    transport._retrying.sleep = slept.append
    assert transport.handle_request(REQUEST).status_code == 200
    assert slept == [7, 3]
    assert [answer.is_closed for answer in answers] == [True, True, True]


class Line:
    """A gateway where a query waits for so long, and is refused then; time passes nowhere else."""

    def __init__(self, waits_s: float, retry_after_s: int) -> None:
        self.now, self.deadlines = 0.0, list[float]()
        self._waits_s, self._retry_after_s = waits_s, retry_after_s

    def refuse(self, request: httpx.Request) -> httpx.Response:
        self.deadlines.append(json.loads(request.content)["deadline_s"])
        self.now += min(self._waits_s, self.deadlines[-1])
        return httpx.Response(429, headers={"Retry-After": str(self._retry_after_s)})

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, deadline_s: float) -> None:
        transport = RetryingTransport(httpx.MockTransport(self.refuse), 2, lambda: self.now)
        transport._retrying.sleep = self.sleep
        document = {"question": "Who?", "deadline_s": deadline_s}
        request = httpx.Request(
            "POST", REQUEST.url, json=document, extensions={DEADLINE: deadline_s}
        )
        assert transport.handle_request(request).status_code == 429


def test_who_has_waited_a_whole_deadline_in_the_line_is_not_put_there_again() -> None:
    line = Line(waits_s=120, retry_after_s=5)
    line.ask(deadline_s=120)
    assert line.deadlines == [120]
    assert line.now == 120


def test_a_deadline_is_one_for_all_tries_and_the_pauses_between_them() -> None:
    line = Line(waits_s=50, retry_after_s=10)
    line.ask(deadline_s=120)
    assert line.deadlines == [120, 60]  # 50 in the line and 10 of pause; then 10 that are left
    assert line.now == 110


@pytest.mark.parametrize(
    ("text", "seconds"), [("12", 12), ("", None), ("soon", None), ("-1", None), ("1.5", None)]
)
def test_the_header_is_read_as_seconds(text: str, seconds: float | None) -> None:
    assert retry_after_s(httpx.Response(503, headers={"Retry-After": text})) == seconds


def test_the_header_is_read_as_a_date() -> None:
    past = httpx.Response(503, headers={"Retry-After": formatdate(0, usegmt=True)})
    assert retry_after_s(past) == 0
    later = httpx.Response(503, headers={"Retry-After": formatdate(4e9, usegmt=True)})
    assert (retry_after_s(later) or 0) > 1e9
