"""Distances from centralised are zero where nothing differs, and only there."""

import pytest

from fedattn.core.plans import shared_plan
from fedattn.research.evaluate.trace import mean_traces, trace_errors
from fedattn.research.prompts import tokenize_case
from fedattn.research.tasks.cases import Case
from tests.harness.scenarios import context_words
from tests.harness.tiny import NUM_LAYERS, tiny_model, word_tokenizer, words


def trace(layers: tuple[int, ...]) -> dict[str, tuple[float, ...]]:
    case = Case(contexts=context_words(7, 5), question=words(60, 4), answer=words(3, 1))
    prompt = tokenize_case(case, word_tokenizer(), NUM_LAYERS, shared_plan(layers))
    traces = trace_errors(tiny_model("llama"), prompt.layout, prompt.token_ids)
    assert mean_traces([traces, traces]) == traces
    return {one.node_id: one.errors for one in traces}


def test_nothing_differs_if_everybody_synchronises_everywhere() -> None:
    for errors in trace(tuple(range(NUM_LAYERS))).values():
        assert errors == pytest.approx([0.0] * NUM_LAYERS, abs=1e-5)


def test_first_contributor_never_differs_and_others_do_from_the_first_local_block() -> None:
    errors = trace((0, 1))
    assert errors["contributor-1"] == pytest.approx([0.0] * NUM_LAYERS, abs=1e-5)
    for name in ("contributor-2", "publisher"):
        assert errors[name][:2] == pytest.approx([0.0, 0.0], abs=1e-5)
        assert min(errors[name][2:]) > 1e-3
