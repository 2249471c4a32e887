"""Several gateways before one NATS server share jobs and API keys."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from fedattn.cluster.access import NatsAccess
from fedattn.cluster.api_keys import SharedKeys
from fedattn.cluster.shared_key import SharedKey
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.api_keys import ApiKey
from tests.harness.gateway import (
    ANSWER,
    QUESTION,
    Gate,
    Harness,
    Script,
    check_problem,
    openapi_document,
    running,
)
from tests.harness.identities import folder_of
from tests.harness.nats import BINARY, NO_NATS, NatsServer, running_nats, tls_config, until

pytestmark = pytest.mark.skipif(BINARY is None, reason=NO_NATS)

SECRET = "5e" * 32


@dataclass
class Cluster:
    """Gateways that are made one after the other, each with a network of its own."""

    nats: NatsServer
    key_file: Path
    stack: AsyncExitStack

    async def gateway(self, script: Script | None = None, *flags: str) -> Harness:
        return await self.stack.enter_async_context(self.running(script, *flags))

    def running(self, script: Script | None = None, *flags: str) -> Any:
        own = [f"--nats={self.nats.url}", f"--shared-key={self.key_file}", "--lease-s=1"]
        return running(script, flags=[*own, "--grace-s=0", *flags])


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    openapi_document()  # takes the event loop for longer than a lease
    key_file = tmp_path / "shared.key"
    key_file.write_text(SECRET)
    async with running_nats(tmp_path / "nats") as nats, AsyncExitStack() as stack:
        yield Cluster(nats, key_file, stack)


def new_entry(key_id: str, sha256: str, name: str = "anna") -> ApiKey:
    return ApiKey(id=key_id, name=name, sha256=sha256, created_at=0.0)


async def make_key(cluster: Cluster, name: str) -> dict[str, str]:
    keys = SharedKeys(NatsAccess(servers=(cluster.nats.url,)), SharedKey(bytes.fromhex(SECRET)))
    key = await asyncio.to_thread(keys.create, lambda i, digest: new_entry(i, digest, name))
    return {"Authorization": f"Bearer {key}"}


async def begin(gateway: Harness, headers: dict[str, str] | None = None, **body: Any) -> str:
    body = {"question": QUESTION, "background": True} | body
    response = await gateway.client.post("/v1/queries", json=body, headers=headers)
    assert response.status_code == 202, response.text
    return str(response.headers["location"])


async def status(gateway: Harness, job: str) -> Any:
    response = await gateway.client.get(job)
    return response.json().get("status", response.status_code)


async def test_a_job_of_one_gateway_is_read_followed_and_removed_at_another(
    cluster: Cluster,
) -> None:
    one, other = await cluster.gateway(), await cluster.gateway()
    job = await begin(one)
    events = await other.client.get(f"{job}/events")
    names = [line for line in events.text.splitlines() if line.startswith("event: ")]
    assert events.status_code == 200, events.text
    assert names[0] == "event: session"
    assert names[-1] == "event: report"
    assert await status(other, job) == "done"  # as soon as the last event was told
    later = await other.client.get(f"{job}/events", headers={"Last-Event-ID": "4"})
    assert [line for line in later.text.splitlines() if line.startswith("id: ")] == ["id: 5"]
    found = (await other.client.get(job)).json()
    assert (found["status"], found["question"]) == ("done", QUESTION)
    assert found == (await one.client.get(job)).json()
    assert (await other.client.delete(job)).status_code == 204
    check_problem(await one.client.get(job), 404, "unknown_job")


async def test_a_job_that_runs_at_one_gateway_is_followed_live_and_cancelled_at_another(
    cluster: Cluster,
) -> None:
    one, other = await cluster.gateway(Gate()), await cluster.gateway()
    job = await begin(one)
    await one.participant.started.wait()
    following = asyncio.create_task(other.client.get(f"{job}/events"))
    assert await status(other, job) in {"queued", "running"}
    assert (await other.client.delete(job)).status_code == 204
    await one.participant.cancelled.wait()
    assert "job_cancelled" in (await following).text
    for gateway in (one, other):
        found = (await gateway.client.get(job)).json()
        assert (found["status"], found["question"]) == ("cancelled", None)


async def test_the_job_of_a_gateway_that_died_is_lost(cluster: Cluster) -> None:
    other = await cluster.gateway()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(cluster.running(Gate()))
        job = await begin(one)
        await one.participant.started.wait()
        link = link_of(one)
        link._running.cancel()  # no lease is written any more, and nothing else
        await asyncio.gather(link._running, return_exceptions=True)
        following = await other.client.get(f"{job}/events")
        assert "job_lost" in following.text
        assert await status(other, job) == "lost"


def link_of(gateway: Harness) -> Any:
    return gateway.app.state.keeping.link


async def test_one_key_is_good_everywhere_until_it_is_revoked(cluster: Cluster) -> None:
    one, other = [await cluster.gateway(None, "--shared-keys") for _ in range(2)]
    check_problem(await one.ask(), 401, "not_signed_in")
    anna, ben = await make_key(cluster, "anna"), await make_key(cluster, "ben")
    for gateway in (one, other):
        await until(lambda at=gateway: len(link_of(at).keys.held) == 2)
    job = await begin(one, anna)
    assert (await other.client.get(job, headers=anna)).status_code == 200
    check_problem(await other.client.get(job, headers=ben), 404, "unknown_job")
    check_problem(await other.client.delete(job, headers=ben), 404, "unknown_job")
    listed = await other.client.get("/v1/queries", headers=anna)
    assert [found["id"] for found in listed.json()["jobs"]] == [job.rpartition("/")[2]]
    keys = SharedKeys(NatsAccess(servers=(cluster.nats.url,)), SharedKey(bytes.fromhex(SECRET)))
    await asyncio.to_thread(keys.revoke, "anna")
    for gateway in (one, other):
        await until(lambda at=gateway: len(link_of(at).keys.held) == 1)
        check_problem(await gateway.client.get(job, headers=anna), 401, "not_signed_in")


async def test_the_same_asked_at_two_gateways_is_asked_once(cluster: Cluster) -> None:
    both = [await cluster.gateway(), await cluster.gateway()]
    key = {"Idempotency-Key": "order-17"}
    body = {"question": QUESTION}
    answers = await asyncio.gather(
        *(one.client.post("/v1/queries", json=body, headers=key) for one in both for _ in range(3))
    )
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({answer.headers["content-location"] for answer in answers}) == 1
    assert sum(len(one.participant.requests) for one in both) == 1


async def test_callers_have_their_rate_at_all_gateways_together(cluster: Cluster) -> None:
    one, other = [
        await cluster.gateway(None, "--shared-keys", "--queries-per-minute=2") for _ in range(2)
    ]
    anna = await make_key(cluster, "anna")
    await until(lambda: all(len(link_of(at).keys.held) == 1 for at in (one, other)))
    for gateway in (one, other):
        before = len(link_of(other).counts._heard), len(link_of(one).counts._heard)
        answer = await gateway.client.post("/v1/queries", json={"question": QUESTION}, headers=anna)
        assert answer.status_code == 200
        await until(
            lambda before=before: (
                before != (len(link_of(other).counts._heard), len(link_of(one).counts._heard))
            )
        )
    for gateway in (one, other):
        refused = await gateway.client.post(
            "/v1/queries", json={"question": QUESTION}, headers=anna
        )
        check_problem(refused, 429, "rate_limited")


async def test_callers_have_their_limit_of_jobs_at_all_gateways_together(cluster: Cluster) -> None:
    flags = ("--jobs-at-once=1", "--jobs-waiting=1")
    one, other = [await cluster.gateway(Gate(), *flags) for _ in range(2)]
    await begin(one)
    await begin(other)
    body = {"question": QUESTION, "background": True}
    check_problem(await one.client.post("/v1/queries", json=body), 429, "rate_limited")


async def test_without_nats_queries_go_on_jobs_do_not_and_all_comes_back(cluster: Cluster) -> None:
    one = await cluster.gateway(None, "--shared-keys")
    anna = await make_key(cluster, "anna")
    await until(lambda: len(link_of(one).keys.held) == 1)
    job = await begin(one, anna)
    await until(lambda: all(held.value.ended for held in link_of(one).rows.held.values()))
    await cluster.nats.kill()
    await until(lambda: not link_of(one)._connected.is_set())
    asked = await one.client.post("/v1/queries", json={"question": QUESTION}, headers=anna)
    assert asked.json()["answer"] == ANSWER
    check_problem(await one.client.get(job, headers=anna), 503, "jobs_unavailable")
    body = {"question": QUESTION, "background": True}
    refused = await one.client.post("/v1/queries", json=body, headers=anna)
    check_problem(refused, 503, "jobs_unavailable")
    await cluster.nats.start()
    await until(link_of(one)._connected.is_set)
    found = (await one.client.get(job, headers=anna)).json()
    assert (found["status"], found["answer"]["answer"]) == ("done", ANSWER)
    await begin(one, anna)


async def test_a_job_runs_on_while_nats_is_away_for_a_moment(cluster: Cluster) -> None:
    gate = Gate()
    one = await cluster.gateway(gate)
    job = await begin(one)
    await one.participant.started.wait()
    await until(lambda: any(held.value.started for held in link_of(one).rows.held.values()))
    await cluster.nats.kill()
    await until(lambda: not link_of(one)._connected.is_set())
    gate.open.set()
    await cluster.nats.start()
    await until(link_of(one)._connected.is_set)
    assert "event: report" in (await one.client.get(f"{job}/events")).text
    assert await status(one, job) == "done"


async def test_nats_reads_neither_questions_nor_answers_nor_ids_nor_names(
    cluster: Cluster, tmp_path: Path
) -> None:
    one = await cluster.gateway(None, "--shared-keys")
    anna = await make_key(cluster, "anna-of-ward-7")
    await until(lambda: len(link_of(one).keys.held) == 1)
    job = await begin(one, anna)
    await one.client.get(f"{job}/events", headers=anna)
    files = [path for path in (tmp_path / "nats").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    assert content
    for secret in (QUESTION, ANSWER, job.rpartition("/")[2], "anna-of-ward-7"):
        assert secret.encode() not in content


async def test_gateways_prove_themselves_to_nats_with_their_certificate(tmp_path: Path) -> None:
    config = tls_config(aggregators=("aggregator-0",), gateways=("gateway",))
    async with running_nats(tmp_path / "nats", config) as nats, AsyncExitStack() as stack:
        flags = [f"--nats={nats.tls_url}", "--grace-s=0"]  # with the key that `certs init` made
        flags.append(f"--certificates={folder_of('gateway')}")
        one, other = [await stack.enter_async_context(running(flags=flags)) for _ in range(2)]
        job = await begin(one)
        assert "event: report" in (await other.client.get(f"{job}/events")).text


async def test_without_the_shared_key_a_gateway_reads_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    one = await cluster.gateway()
    job = await begin(one)
    await one.client.get(f"{job}/events")
    other_key = tmp_path / "other.key"
    other_key.write_text("77" * 32)
    stranger = await cluster.gateway(None, f"--shared-key={other_key}")
    response: httpx.Response = await stranger.client.get(job)
    check_problem(response, 404, "unknown_job")


async def test_keys_wait_for_the_first_gateway_which_makes_their_place(cluster: Cluster) -> None:
    with pytest.raises(ConfigurationError, match="start one with --nats first"):
        await make_key(cluster, "anna")
    await cluster.gateway()
    await make_key(cluster, "anna")
