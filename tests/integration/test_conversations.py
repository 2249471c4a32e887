"""A conversation over a small network: earlier turns are the publisher's, no row moves twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from fedattn.model.loading import LoadedModel
from fedattn.passages.choice import Wish
from fedattn.research.oracle import oracle_greedy
from gateway.app import create_app
from tests.harness.gateway import make_settings
from tests.harness.networks import NUM_NEW_TOKENS, Network
from tests.harness.scenarios import Scenario, context_words
from tests.harness.tiny import word_tokenizer, words

MODEL = "publisher/tiny"
FIRST, ANSWERED, SECOND = words(60, 4), words(40, 50), words(17, 70)
SYSTEM = words(30, 3)
HOW = {"plan": "all", "compression": {"codec": "fp32"}, "share": "question"}


@asynccontextmanager
async def openai_of(network: Network) -> AsyncIterator[AsyncOpenAI]:
    app = create_app(make_settings(network.aggregator))
    transport = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app):
        inner = httpx2.AsyncClient(transport=transport, base_url="http://localhost/v1")
        async with AsyncOpenAI(
            base_url="http://localhost/v1", api_key="none", http_client=inner, max_retries=0
        ) as client:
            yield client


def answer_of(model: LoadedModel, question: str) -> str:
    """What the oracle says after both contexts."""
    scenario = Scenario(
        name="", contexts=context_words(6, 7), plan="all", publisher_plan="all", question=question
    )
    tokens = oracle_greedy(model, scenario.layout(), scenario.joined(), NUM_NEW_TOKENS)
    return word_tokenizer().decode(tokens)


async def chat(client: AsyncOpenAI, *turns: tuple[str, str]) -> dict[str, Any]:
    """The report of an answer to a conversation."""
    messages: Any = [{"role": role, "content": content} for role, content in turns]
    done = await client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=NUM_NEW_TOKENS, extra_body={"fedattn": HOW}
    )
    assert done.model_extra is not None
    report: dict[str, Any] = done.model_extra["fedattn"]
    return report


async def test_second_turn_moves_no_rows_and_is_answered_after_the_first(
    network: Network, model: LoadedModel
) -> None:
    async with openai_of(network) as client:
        first = await chat(client, ("user", FIRST))
        second = await chat(
            client, ("system", SYSTEM), ("user", FIRST), ("assistant", ANSWERED), ("user", SECOND)
        )
    assert first["totals"]["kv_bytes"] > 0
    assert second["totals"]["kv_bytes"] == 0
    rows = [one["rows"] for one in second["participants"] if one["role"] == "contributor"]
    assert rows == ["publisher_cache", "publisher_cache"]
    assert first["answer"] == answer_of(model, FIRST)
    # without a chat template, "Answer:" is between the turns: the unknown word w0
    assert second["answer"] == answer_of(model, f"{SYSTEM} {FIRST} w0 {ANSWERED} {SECOND}")


async def test_a_conversation_of_its_own_api_is_the_same(network: Network) -> None:
    turns = [{"speaker": "user", "text": FIRST}, {"speaker": "assistant", "text": ANSWERED}]
    body = HOW | {"question": SECOND, "turns": turns, "sampling": {"max_new_tokens": 5}}
    async with openai_of(network) as client:
        other = await chat(client, ("user", FIRST), ("assistant", ANSWERED), ("user", SECOND))
        own = await client.post("/queries", body=body, cast_to=dict[str, Any])
    assert own["answer"] == other["answer"]


async def test_more_than_fits_the_window_is_refused(network: Network) -> None:
    async with openai_of(network) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await chat(client, ("user", FIRST), ("assistant", words(5, 300)), ("user", SECOND))
    assert caught.value.code == "context_too_long"


async def test_contributors_are_told_what_the_user_said_the_question_first(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    context = network.nodes["node-0"].context
    choose = context.choose

    def noting(wish: Wish, *withheld: Any) -> Any:
        told.append(wish.words)
        return choose(wish, *withheld)

    monkeypatch.setattr(context, "choose", noting)
    async with openai_of(network) as client:
        await chat(
            client, ("system", SYSTEM), ("user", FIRST), ("assistant", ANSWERED), ("user", SECOND)
        )
    assert told == [f"{SECOND}\n{FIRST}"]
