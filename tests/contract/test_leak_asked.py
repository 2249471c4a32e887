"""Asking gives texts away too: attacks on a tiny model find what they should, and no more."""

import numpy as np
import pytest

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.asked import query_codec_by_name
from fedattn.core.errors import CorruptFrameError
from fedattn.core.plans import SyncPlan
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller
from fedattn.research.leak.asked import Asking, Conversation, interrogate, overhear, reconstruct
from fedattn.research.leak.attacks import Effort
from fedattn.research.leak.queries import QueryStyle, chosen_queries
from tests.harness.tiny import FAMILIES, tiny_model, word_tokenizer

PREFIX = [1, 2, 3]
TEXT = [5, 40, 7, 88, 61, 13, 29]
EVERYTHING = Effort()
RAW = query_codec_by_name("fp32")


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def asking(*layers: int, bounds: AnswerBounds | None = None) -> Asking:
    return Asking(plan=SyncPlan(layers), bounds=bounds or AnswerBounds(), codec=RAW)


def interrogated(model: LoadedModel, how: Asking, style: QueryStyle) -> Conversation:
    return interrogate(Prefiller(model), PREFIX, TEXT, how, style)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_few_queries_of_common_length_give_the_text(model: LoadedModel, layer: int) -> None:
    how = asking(layer, bounds=AnswerBounds(lengths=model.row_bounds))
    conversation = interrogated(model, how, QueryStyle(num_tokens=8))
    recovery = reconstruct(model, conversation, EVERYTHING)
    assert recovery.found == tuple(TEXT)
    assert conversation.num_tokens == 8


def test_fewer_queries_than_rows_give_less(model: LoadedModel) -> None:
    conversation = interrogated(model, asking(2), QueryStyle(num_tokens=1))
    assert reconstruct(model, conversation, EVERYTHING).num_right < len(TEXT)


def test_who_asks_an_honest_question_hears_the_text(model: LoadedModel) -> None:
    conversation = overhear(
        Prefiller(model), word_tokenizer(), TEXT, "w9 w17 w33 w51 w70 w11", asking(1)
    )
    assert conversation.num_tokens > len(TEXT)  # the question, its form and the answer
    assert reconstruct(model, conversation, EVERYTHING).found == tuple(TEXT)


def test_several_blocks_say_more_than_one() -> None:
    model = tiny_model("llama")
    conversation = interrogated(model, asking(1, 2, 3), QueryStyle(num_tokens=2))
    one, three = (
        reconstruct(model, conversation, Effort(num_blocks=count)).num_right for count in (1, 3)
    )
    assert three > one


def test_noise_large_enough_leaves_nothing_to_find() -> None:
    model = tiny_model("llama")
    how = asking(1, bounds=AnswerBounds(noise=3.0, seed=2))
    conversation = interrogated(model, how, QueryStyle(num_tokens=8))
    assert reconstruct(model, conversation, EVERYTHING, noise=3.0).num_right <= 2


def test_a_guided_search_is_not_led_astray_by_its_errors() -> None:
    """With few candidates some tokens cannot be found; those behind them can, behind the truth."""
    model = tiny_model("llama")
    conversation = interrogated(model, asking(1), QueryStyle(num_tokens=8))
    few = Effort(num_candidates=60)
    alone = reconstruct(model, conversation, few)
    guided = reconstruct(model, conversation, few, is_guided=True)
    assert alone.num_right <= guided.num_right < len(TEXT)
    whole = reconstruct(model, conversation, EVERYTHING, is_guided=True)
    assert whole.found == tuple(TEXT)


def test_queries_beyond_the_bound_are_refused() -> None:
    model = tiny_model("llama")
    how = asking(1, bounds=AnswerBounds(lengths=model.row_bounds))
    with pytest.raises(CorruptFrameError, match="queries of the publisher at block 1"):
        interrogated(model, how, QueryStyle(length=100.0))


def test_made_up_queries_are_as_long_as_wanted() -> None:
    model = tiny_model("llama")
    short, long = (
        chosen_queries(model, PREFIX, [2], QueryStyle(num_tokens=5, length=length))[2]
        for length in (1.0, 3.0)
    )
    norms = np.linalg.norm(short, axis=-1)
    assert short.shape == (6, 5, 8)
    np.testing.assert_allclose(norms, np.broadcast_to(norms[:, :1], norms.shape), rtol=1e-5)
    np.testing.assert_allclose(3 * short, long, rtol=1e-5)
