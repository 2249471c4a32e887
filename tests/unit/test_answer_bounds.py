"""Bounds of a contributor that is asked: what is refused, and what is done to answers."""

import numpy as np
import pytest
import torch

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.asked import PartialAttention
from fedattn.core.errors import CorruptFrameError, InvalidRequestError
from fedattn.core.plans import NOWHERE, SyncPlan
from fedattn.core.row_bounds import MARGIN, RowBounds
from fedattn.core.spans import Member, Role, Span
from fedattn.core.types import FloatArray, KvRows
from fedattn.model.asked import AskedRows
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens
from tests.harness.samples import ROTARY
from tests.harness.tiny import ALL_FAMILIES, VOCABULARY, tiny_model

HEADS, KV_HEADS, ROWS, SIZE = 4, 2, 12, 2
SPAN = Span(3, 3 + ROWS)
MEMBER = Member(node_id="a", role=Role.CONTRIBUTOR, span=SPAN, plan=NOWHERE, answers=SyncPlan((0,)))
RANDOM = np.random.default_rng(3)
KEYS, VALUES = (RANDOM.standard_normal((KV_HEADS, ROWS, SIZE)).astype(np.float32) for _ in range(2))
QUERIES = 6 * RANDOM.standard_normal((HEADS, 5, SIZE)).astype(np.float32)


def ask(
    bounds: AnswerBounds | None, queries: FloatArray = QUERIES, position: int = SPAN.stop
) -> PartialAttention:
    rows = AskedRows(MEMBER, [ROTARY], [None], bounds=bounds)
    rows.keep(0, KvRows(keys=KEYS, values=VALUES, positions=np.arange(SPAN.start, SPAN.stop)))
    return rows.answer(0, queries, position)


def effective_rows(queries: FloatArray) -> FloatArray:
    """exp(entropy) of attention over all rows, [Hq, T]."""
    keys = np.repeat(KEYS, HEADS // KV_HEADS, axis=0)
    weights = torch.softmax(torch.from_numpy(queries @ keys.transpose(0, 2, 1)), dim=-1)
    return np.asarray(torch.special.entr(weights).sum(dim=-1).exp())


def test_bounds_that_are_off_change_nothing() -> None:
    free, same = ask(None), ask(AnswerBounds(least_rows=1.0, noise=0.0))
    assert (free.output == same.output).all()
    assert (free.lse == same.lse).all()


@pytest.mark.parametrize("position", [0, SPAN.start, SPAN.stop - 1])
def test_queries_among_the_rows_are_refused(position: int) -> None:
    with pytest.raises(CorruptFrameError, match=f"at position {position}, expected at least 15"):
        ask(None, position=position)


def lengths(longest: float) -> RowBounds:
    rows = np.ones((1, KV_HEADS), dtype=np.float32)
    return RowBounds(keys=rows, values=rows, queries=np.full((1, HEADS), longest, np.float32))


def test_longer_queries_than_the_model_makes_are_refused() -> None:
    longest = float(np.linalg.norm(QUERIES, axis=-1).max())
    ask(AnswerBounds(lengths=lengths(longest / MARGIN * 1.001)))
    with pytest.raises(CorruptFrameError, match=r"queries of the publisher at block 0: head \d of"):
        ask(AnswerBounds(lengths=lengths(longest / MARGIN * 0.999)))


@pytest.mark.parametrize("scalar", [np.nan, np.inf, 1e30])
def test_queries_that_are_no_numbers_are_refused(scalar: float) -> None:
    queries = QUERIES.copy()
    queries[2, 1, 0] = scalar
    with pytest.raises(CorruptFrameError, match=r"head 2 of norm (nan|inf|1e\+30)"):
        ask(AnswerBounds(lengths=lengths(1e3)), queries)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_queries_of_a_model_are_within_its_bounds(family: str) -> None:
    model = tiny_model(family)
    made = _made_queries(model)
    for layer, queries in enumerate(made):
        norms = np.linalg.norm(queries, axis=-1).max(axis=1)
        assert (norms <= model.row_bounds.queries[layer] * 1.0001).all()
        assert (norms >= 0.1 * model.row_bounds.queries[layer]).all()  # no empty words
        model.row_bounds.check_queries(queries, layer, "the publisher")


def _made_queries(model: LoadedModel) -> list[FloatArray]:
    """Scaled, of every token of the vocabulary."""
    made = []

    class Watching(FederatedCache):
        def attend(
            self,
            layer: int,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            scaling: float | None,
        ) -> torch.Tensor:
            factor = query.shape[-1] ** -0.5 if scaling is None else scaling
            made.append((query[0] * factor).numpy())
            return super().attend(layer, query, key, value, scaling)

    cache = Watching(model.windows, model.device)
    with torch.inference_mode():
        forward_tokens(model, cache, list(range(VOCABULARY)), range(VOCABULARY))
    return made


@pytest.mark.parametrize("least", [2.0, 5.0, 11.0])
def test_sharp_attention_is_flattened_to_the_floor_and_flat_one_left(least: float) -> None:
    free, flat = ask(None), ask(AnswerBounds(least_rows=least))
    is_sharp = effective_rows(QUERIES) < least
    assert is_sharp.any()
    assert (free.lse == flat.lse).all()  # the part weighs as before
    assert (free.output == flat.output)[~is_sharp].all()
    for head, token in zip(*np.nonzero(is_sharp), strict=True):
        weights = _weights_of(flat.output[head, token], QUERIES[head, token], head)
        assert np.exp(weights) == pytest.approx(least, rel=0.01)


def _weights_of(output: FloatArray, query: FloatArray, head: int) -> float:
    """Entropy of the temperature that explains an output best."""
    keys, values = KEYS[head // 2], VALUES[head // 2]
    factors = torch.linspace(0, 1, 20001)[:, None]
    weights = torch.softmax(factors * torch.from_numpy(keys @ query), dim=-1)
    apart = (weights @ torch.from_numpy(values) - torch.from_numpy(output)).norm(dim=-1)
    return float(torch.special.entr(weights[apart.argmin()]).sum())


def test_a_floor_above_the_rows_there_are_makes_all_alike() -> None:
    flat = ask(AnswerBounds(least_rows=500.0))
    means = np.repeat(VALUES.mean(axis=1), 2, axis=0)[:, None]
    np.testing.assert_allclose(flat.output, np.broadcast_to(means, flat.output.shape), atol=2e-3)


def test_noise_is_a_share_of_the_values() -> None:
    queries = np.tile(QUERIES[:, :1], (1, 4000, 1))
    free, noisy = ask(None, queries), ask(AnswerBounds(noise=0.5, seed=1), queries)
    sizes = np.repeat(np.sqrt(np.square(VALUES).mean(axis=(1, 2))), 2)
    spread = (noisy.output - free.output).std(axis=(1, 2))
    assert spread == pytest.approx(0.5 * sizes, rel=0.05)
    assert (noisy.lse - free.lse).std(axis=1) == pytest.approx(0.5, rel=0.1)
    assert (noisy.output - free.output).mean() == pytest.approx(0, abs=0.02)


def test_noise_is_drawn_anew_for_every_answer() -> None:
    bounds = AnswerBounds(noise=0.5)
    assert (ask(bounds).output != ask(bounds).output).all()
    seeded = AnswerBounds(noise=0.5, seed=4)
    assert (ask(seeded).output == ask(seeded).output).all()


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"least_rows": 0.5}, "least rows must be between 1 and"), ({"noise": -1.0}, "noise must be")],
)
def test_bounds_out_of_range_are_refused(settings: dict[str, float], what: str) -> None:
    with pytest.raises(InvalidRequestError, match=what):
        AnswerBounds(**settings)  # type: ignore[arg-type]
