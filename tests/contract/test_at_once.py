"""Questions at once: each answer is the one it is alone, whatever becomes of the others."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import generate_tokens
from fedattn.model.decode_loop import DecodeLoop
from fedattn.model.fused import FLOAT32, FusedDecoder
from fedattn.model.loading import LoadedModel
from fedattn.wire.convert import sampling_to_wire
from tests.harness.learned import ragged
from tests.harness.networks import ask, query, running_network
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import LOSSLESS, SCENARIOS
from tests.harness.tiny import FAMILIES, tiny_model, words

QUESTIONS = 8


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def test_answers_of_the_loop_are_those_of_each_alone(model: LoadedModel) -> None:
    """Greedy and drawn ones, of other lengths, with rows of all heads and of each head."""
    compression = replace(ragged(LOSSLESS, model.shape), least_rows=8)
    prefills = [
        prefill_in_process(scenario, model)[0]
        for case in SCENARIOS[:4]
        for scenario in (case, replace(case, compression=compression))
    ]
    samplings = [
        SamplingParams(max_new_tokens=4 + index, temperature=index % 2, seed=index)
        for index in range(len(prefills))
    ]
    decoder = FusedDecoder(model, FLOAT32)
    alone = [
        list(generate_tokens(model, prefill, sampling, lambda: decoder))
        for prefill, sampling in zip(prefills, samplings, strict=True)
    ]
    steps: list[int] = []
    loop = DecodeLoop(model, lambda: decoder, on_step=steps.append)
    with closing(loop), ThreadPoolExecutor(len(prefills)) as pool:
        together = list(
            pool.map(lambda one: list(loop.generate(*one)), zip(prefills, samplings, strict=True))
        )
    assert together == alone
    assert sum(steps) == sum(len(answer) for answer in alone) - len(alone)


async def test_questions_over_the_network_do_not_touch_each_other(tmp_path: Path) -> None:
    """Eight at once through one publisher, and one more whose asker leaves in the middle."""
    model = tiny_model("llama")
    async with running_network(model, tmp_path, max_sessions=2 * QUESTIONS + 2) as network:
        publisher = network.nodes["publisher"]
        publisher.make_decoder = lambda: FusedDecoder(model, FLOAT32)
        asked = [words(40 + 3 * index, 4 + index) for index in range(QUESTIONS)]
        alone = [(await ask(network, question=one))[-1].result.text for one in asked]
        leaver = network.publisher.Query(
            query(sampling=sampling_to_wire(SamplingParams.most_likely(100)))
        )

        async def leave() -> None:
            async for event in leaver:
                if event.HasField("token"):
                    break
            leaver.cancel()

        answers, _ = await asyncio.gather(
            asyncio.gather(*(ask(network, question=one) for one in asked)), leave()
        )
        assert [events[-1].result.text for events in answers] == alone
        await publisher.admission.wait_idle()
        assert len(set(alone)) > 1
