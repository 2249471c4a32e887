"""The client's jobs at a real gateway."""

import pytest

from fedattn.client import AsyncClient
from fedattn.core.errors import JobCancelledError, NoContributorsError, UnknownJobError
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.jobs import JobStatus
from tests.harness.gateway import ANSWER, QUESTION, Gate, failing, running, served


async def test_a_job_is_submitted_waited_for_found_again_and_removed() -> None:
    async with running() as gateway, served(gateway) as (url, _), AsyncClient(url) as client:
        job = await client.submit(QUESTION, idempotency_key="monday")
        assert (await job.wait()).answer == ANSWER
        again = await client.submit(QUESTION, idempotency_key="monday")
        assert again.id == job.id
        *_, last = [event async for event in (await client.job(job.id)).events()]
        assert isinstance(last, QueryAnswer)
        record = await job.refresh()
        assert (record.status, record.answer) == (JobStatus.DONE, last)
        await job.cancel()
        with pytest.raises(UnknownJobError):
            await client.job(job.id)
    assert len(gateway.participant.requests) == 1


async def test_a_job_that_fails_or_is_cancelled_raises_why() -> None:
    async with running(failing(NoContributorsError("nobody joined"))) as gateway:
        async with served(gateway) as (url, _), AsyncClient(url) as client:
            with pytest.raises(NoContributorsError):
                await (await client.submit(QUESTION)).wait()
    async with running(Gate()) as gateway, served(gateway) as (url, _), AsyncClient(url) as client:
        job = await client.submit(QUESTION)
        await gateway.participant.started.wait()
        await job.cancel()
        with pytest.raises(JobCancelledError):
            await job.wait()
