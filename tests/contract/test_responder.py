"""Whoever answers, in process equals the one-model oracle."""

from dataclasses import replace

import pytest
import torch

from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller
from fedattn.research.oracle import oracle_greedy, oracle_logits
from fedattn.research.simulate import CaseTokens, SimulationSettings, Simulator
from tests.harness.learned import ragged, random_scorer
from tests.harness.scenarios import LOSSLESS, NUM_NEW_TOKENS, SCENARIOS, Scenario
from tests.harness.tiny import TINY_SHAPE, UNLIKE_FAMILIES, tiny_model

SPARSE = replace(LOSSLESS, keep_ratio=0.5, input_keep_ratio=0.7, selector="random", seed=3)
FILLED = [one for one in SCENARIOS if all(one.contexts) and one.contexts]
ANSWER = [9, 4, 17]


def settings(case: Scenario, compression: Compression, responder: int) -> SimulationSettings:
    return SimulationSettings(
        plans=case.plans(),
        compression=compression,
        prefix=case.prefix_mode,
        max_new_tokens=NUM_NEW_TOKENS,
        responder=responder,
        scorer=random_scorer(TINY_SHAPE),
    )


def cut(case: Scenario) -> CaseTokens:
    tokenizer = case.tokenizer
    return CaseTokens(
        prefix=tokenizer.prefix(),
        contexts=[tokenizer.context(text) for text in case.contexts],
        question=tokenizer.question(case.question),
        answer=ANSWER,
    )


@pytest.mark.parametrize("compression", [LOSSLESS, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("case", FILLED, ids=lambda case: case.name)
@pytest.mark.parametrize("family", UNLIKE_FAMILIES)
def test_every_participant_answers_as_the_oracle_says(
    family: str, case: Scenario, compression: Compression
) -> None:
    check_answers(tiny_model(family), case, compression)


@pytest.mark.parametrize("case", [SCENARIOS[1], SCENARIOS[7]], ids=lambda case: case.name)
def test_so_it_does_with_rows_of_each_head(case: Scenario) -> None:
    check_answers(tiny_model("llama"), case, ragged(LOSSLESS, TINY_SHAPE))


def check_answers(model: LoadedModel, case: Scenario, compression: Compression) -> None:
    stores: list[KvStore] = []

    def exchange(store: KvStore, index: int) -> InProcessExchange:
        stores.append(store)
        return InProcessExchange(store, index)

    simulator = Simulator(Prefiller(model), case.tokenizer, exchange)
    for responder in range(1, len(case.contexts) + 2):
        chosen = settings(case, compression, responder)
        result = simulator.run_tokens(cut(case), chosen, lambda _: True)
        trace = result.trace
        args = (model, trace.layout, trace.token_ids)
        told, came = (trace.kept, responder - 1), stores[-1].travelled()
        expected = oracle_greedy(*args, NUM_NEW_TOKENS, *told, travelled=came)
        assert trace.generated == expected
        logits = oracle_logits(*args, ANSWER, *told, travelled=came)
        log_probs = torch.log_softmax(logits[-len(ANSWER) - 1 : -1], dim=-1)
        nll = -float(log_probs[range(len(ANSWER)), ANSWER].mean())
        assert result.nll == pytest.approx(nll, abs=1e-4)


def test_responder_that_is_not_there_is_refused() -> None:
    case = SCENARIOS[0]
    simulator = Simulator(Prefiller(tiny_model("llama")), case.tokenizer)
    with pytest.raises(InvalidRequestError, match="expected 1 to 2, the publisher, got 3"):
        simulator.run_tokens(cut(case), settings(case, LOSSLESS, 3), lambda _: True)
