"""Withheld tokens are found again by the rows behind them, and by nothing else."""

from itertools import product

import numpy as np
import pytest
import torch

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import SyncPlan
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller, forward_tokens
from fedattn.research.leak.attacks import Effort
from fedattn.research.leak.candidates import continuation_rows
from fedattn.research.leak.guess import guess
from fedattn.research.leak.pieces import Piece, Withheld, find_pieces
from fedattn.research.leak.received import Received, Sending, TokenRows, receive_rows
from fedattn.research.leak.rounding import RoundedRow
from services.participant.withheld import compile_pattern, withheld_tokens
from tests.harness.tiny import UNLIKE_FAMILIES, tiny_model, word_tokenizer

PREFIX = [1, 2, 3]
TEXT = [5, 40, 7, 88, 7, 61, 13, 29, 54, 2]
PAIRS = tuple(product(range(80, 90), range(20)))
PIECE = Piece(start=3, candidates=PAIRS, truth=PAIRS.index((88, 7)))


@pytest.fixture(params=UNLIKE_FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def received(model: LoadedModel, codec: str = "fp32", keep_ratio: float = 1.0) -> Received:
    compression = Compression(codec=codec_by_name(codec), keep_ratio=keep_ratio)
    sending = Sending(plan=SyncPlan((1, 3)), compression=compression)
    return receive_rows(Prefiller(model), PREFIX, TEXT, sending, PIECE.tokens)


@pytest.mark.parametrize(
    "codec", ["fp32", "bf16", "int8", "int4", "entropy-fine", "entropy-coarse"]
)
def test_the_rows_behind_give_a_withheld_piece_away(model: LoadedModel, codec: str) -> None:
    found = guess(model, received(model, codec), PIECE, Effort(num_blocks=2))
    assert (found.rank, found.num_candidates, found.num_rows) == (1, 200, 8)
    assert found.found == found.truth == (88, 7)
    assert found.margin > 0


def test_raw_rows_leave_no_doubt(model: LoadedModel) -> None:
    found = guess(model, received(model), PIECE, Effort(num_rows=1))
    assert found.rank == found.rank_by_distance == 1
    assert found.margin > 0.5


def test_a_scalar_is_possible_within_the_rounding_of_its_codec() -> None:
    ones = np.ones((2, 1, 4), dtype=np.float32)
    token = TokenRows(heads=np.array([0]), rows=ones)
    row = RoundedRow(token=token, slack=ones * np.float32(0.5))
    computed = torch.ones(2, 1, 3, 4)
    computed[:, :, 1] += 0.4  # nearer to the border, no less possible
    computed[0, 0, 2, 3] += 0.6
    assert row.share_impossible(computed).tolist() == [0.0, 0.0, 1 / 8]


def test_withheld_rows_do_not_travel(model: LoadedModel) -> None:
    for rows in received(model).rows.values():
        assert rows.positions.tolist() == 2 * [3, 4, 5, 8, 9, 10, 11, 12]


def test_rows_before_and_within_a_piece_are_not_used() -> None:
    """Every row is there, so an attack that looked at those of the piece would find it."""
    model = tiny_model("llama")
    sending = Sending(plan=SyncPlan((1, 3)), compression=Compression())
    everything = receive_rows(Prefiller(model), PREFIX, TEXT, sending)
    last = Piece(start=8, candidates=((54, 3), (9, 9), (54, 2)), truth=2)
    found = guess(model, everything, last, Effort(num_blocks=2))
    assert (found.num_rows, found.rank, found.margin) == (0, 3, 0.0)


def test_only_rows_that_travel_are_compared() -> None:
    model = tiny_model("llama")
    half = received(model, keep_ratio=0.5)
    behind = [len(np.unique(rows.positions[rows.positions > 7])) for rows in half.rows.values()]
    found = guess(model, half, PIECE, Effort(num_blocks=2, num_rows=5))
    assert found.num_rows == sum(behind) < 10
    assert found.rank == 1


def test_continuations_have_the_rows_of_a_forward_pass(model: LoadedModel) -> None:
    cache = FederatedCache(model.windows, model.device)
    tried = torch.tensor([[4, 9, 6], [42, 8, 77]])
    with torch.inference_mode():
        forward_tokens(model, cache, PREFIX, range(3))
        computed = continuation_rows(model, cache.layers, tried, 3, [1, 4])
        forward_tokens(model, cache, tried[1].tolist(), range(3, 6))
    for layer in (1, 4):
        rows = cache.layers[layer]
        expected = torch.stack([rows.keys[0, :, 3:], rows.values[0, :, 3:]])
        assert torch.allclose(computed[layer][:, :, 1], expected, atol=1e-5)


def test_pieces_are_the_tokens_that_a_policy_withholds() -> None:
    tokenizer, text = word_tokenizer(), "w5 w41 w7 w8 w63"
    (first, second) = find_pieces(tokenizer, text, Withheld(expression=r"\d\d"))
    found = withheld_tokens(*tokenizer.context_offsets(text), [compile_pattern("two", r"\d\d")])
    assert (*first.tokens, *second.tokens) == found == (1, 4)
    assert first.candidates[first.truth] == (41,)
    assert set(first.candidates) == {(token,) for token in (0, *range(10, 97))}  # w00 is unknown


def test_what_makes_other_tokens_is_no_candidate() -> None:
    tokenizer = word_tokenizer()
    withheld = Withheld(expression=r"w4.?w", alphabet="1 ")
    (piece,) = find_pieces(tokenizer, "w5 w4 w7", withheld)
    assert piece.candidates == ((4, 7),)


@pytest.mark.parametrize(
    ("withheld", "message"),
    [
        ({"expression": "("}, r"'\(' is no regular expression"),
        ({"expression": "nothing"}, "finds nothing in the text"),
        ({"expression": ".+", "alphabet": "w0123456789"}, "candidates for a piece, got 1,771,561"),
        ({"expression": "w4", "alphabet": "x"}, r"got 1 \(0 characters"),
    ],
)
def test_what_cannot_be_guessed_is_refused(withheld: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        find_pieces(word_tokenizer(), "w41 w63", Withheld(**withheld))


def test_a_text_without_any_row_is_refused() -> None:
    sending = Sending(plan=SyncPlan((1,)), compression=Compression())
    with pytest.raises(InvalidRequestError, match="every token of the text is withheld"):
        receive_rows(Prefiller(tiny_model("llama")), PREFIX, TEXT, sending, range(len(TEXT)))
