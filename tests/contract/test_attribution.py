"""Where an answer was looked for, against full attention of one model over the joined text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedattn.core.compression import Compression
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import SessionLayout, Span
from fedattn.core.visibility import computed_positions
from fedattn.model.attention import run_model
from fedattn.model.attribution import Attribution, WatchedRows, attribute_answer
from fedattn.model.decode import generate_tokens
from fedattn.model.exchange import KvStore
from fedattn.model.fused import FLOAT32, FusedDecoder
from fedattn.model.likelihood import log_probs_alone, log_probs_of
from fedattn.model.loading import LoadedModel
from fedattn.research.oracle import DenseMasks, RefittedRows, oracle_logits
from tests.harness.learned import ragged
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import LOSSLESS, SCENARIOS, Scenario
from tests.harness.tiny import NUM_LAYERS, TINY_SHAPE, UNLIKE_FAMILIES, tiny_model, tiny_network

TOLERANCE = 1e-5
ANSWER = [9, 4, 17, 4, 60]
SPARSE = replace(LOSSLESS, keep_ratio=0.5, input_keep_ratio=0.7, selector="random", seed=3)
FILLED = [one for one in SCENARIOS if any(one.contexts) and one.publisher_plan != "none"]


@pytest.fixture(scope="module", params=UNLIKE_FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def halves(layout: SessionLayout) -> list[Span]:
    """Two passages a contributor, with a token left out between them where there are enough."""
    passages = []
    for member in layout.contributors:
        start, stop = member.span.start, member.span.stop
        middle = (start + stop) // 2
        passages += [Span(start, middle), Span(min(middle + 1, stop), stop)]
    return passages


def assert_equals(
    got: Attribution, weights: Sequence[torch.Tensor], positions: torch.Tensor, passages: list[Span]
) -> None:
    """Hold it to attention weights [Hq, A, S] of each sync layer, with loops."""
    masses, pointed = [], []
    for span in passages:
        inside = (positions >= span.start) & (positions < span.stop)
        masses.append(
            float(torch.stack([one[:, :, inside].sum(-1).mean() for one in weights]).mean())
        )
        pointed.append(sum(float((one[:, :, inside] ** 4).sum()) for one in weights))
    everywhere = torch.stack(
        [(positions >= span.start) & (positions < span.stop) for span in passages]
    ).any(0)
    peak = max(float(head[:, everywhere].amax(-1).mean()) for one in weights for head in one)
    assert got.masses == pytest.approx(masses, abs=TOLERANCE)
    assert got.shares == pytest.approx([one / (sum(pointed) or 1) for one in pointed], abs=1e-3)
    assert got.peak == pytest.approx(peak, abs=TOLERANCE)


def chosen_by(weights: torch.Tensor, answer: list[int]) -> torch.Tensor:
    """Of weights [Hq, S, S] over a text with its answer, those of the queries before its tokens."""
    return weights[:, -len(answer) - 1 : -1]


class FullAttention(RefittedRows):
    """The oracle's view, which keeps whole attention matrices [Hq, S, S]."""

    def __init__(
        self,
        model: LoadedModel,
        layout: SessionLayout,
        num_generated: int,
        store: KvStore | None = None,
    ) -> None:
        kept = None if store is None else store.kept_positions()
        masks = DenseMasks(model, layout, num_generated, kept)
        super().__init__(masks, {} if store is None else store.travelled())
        self.noted: list[torch.Tensor] = []

    def weights(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, biases: torch.Tensor
    ) -> torch.Tensor:
        self.noted.append(super().weights(layer, query, key, biases))
        return self.noted[-1]


@torch.inference_mode()
def oracle_attention(
    model: LoadedModel, scenario: Scenario, store: KvStore
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Weights [Hq, A, S] before each answer token at the publisher's sync layers, positions [S]."""
    layout = scenario.layout()
    chosen = torch.from_numpy(computed_positions(layout, len(ANSWER)))
    shifted = [member.position_offset for member in layout.members if member.position_offset]
    prefix = torch.arange(layout.prefix_len)
    ids = torch.tensor(scenario.joined() + ANSWER)
    positions = torch.cat([*(offset + prefix for offset in shifted), chosen])
    tokens = torch.cat([*(ids[prefix] for _ in shifted), ids[chosen]])
    view = FullAttention(model, layout, len(ANSWER), store)
    run_model(model.backbone, tokens, positions, view)
    weights = [chosen_by(view.noted[layer], ANSWER) for layer in layout.publisher.plan.layers]
    return weights, positions


@pytest.mark.parametrize(
    "compression",
    [LOSSLESS, SPARSE, ragged(LOSSLESS, TINY_SHAPE)],
    ids=["every row", "gaps", "rows of each head"],
)
@pytest.mark.parametrize("scenario", FILLED, ids=lambda scenario: scenario.name)
def test_attribution_equals_full_attention_of_the_oracle(
    scenario: Scenario, compression: Compression, model: LoadedModel
) -> None:
    scenario = replace(scenario, compression=compression)
    prefill, store = prefill_in_process(scenario, model)
    layout = scenario.layout()
    passages = halves(layout)
    layers = layout.publisher.plan.layers
    got = attribute_answer(model, prefill, ANSWER, passages, layers)
    weights, positions = oracle_attention(model, scenario, store)
    assert_equals(got, weights, positions, passages)
    got = attribute_answer(model, prefill, ANSWER[:1], passages, layers)
    first = [one[:, :1] for one in weights]
    assert_equals(got, first, positions, passages)


@pytest.mark.parametrize("answer", [ANSWER, ANSWER[:1]])
@pytest.mark.parametrize("scenario", FILLED, ids=lambda scenario: scenario.name)
def test_likelihoods_are_those_of_the_oracle(
    scenario: Scenario, answer: list[int], model: LoadedModel
) -> None:
    prefill, store = prefill_in_process(scenario, model)
    args = (model, scenario.layout(), scenario.joined(), answer[:-1], store.kept_positions())
    logits = oracle_logits(*args, travelled=store.travelled())[-len(answer) :]
    expected = torch.log_softmax(logits, -1)[torch.arange(len(answer)), torch.tensor(answer)]
    assert log_probs_of(model, prefill, answer) == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("family", UNLIKE_FAMILIES)
def test_all_layers_equal_the_attention_of_plain_transformers(family: str) -> None:
    scenario, model = SCENARIOS[1], tiny_model(family)
    prefill, _ = prefill_in_process(scenario, model)
    passages = halves(scenario.layout())
    got = attribute_answer(model, prefill, ANSWER, passages, range(NUM_LAYERS))
    plain = tiny_network(family)
    plain.set_attn_implementation("eager")  # type: ignore[operator]
    ids = torch.tensor([scenario.joined() + ANSWER])
    with torch.inference_mode():
        attentions = plain(ids, output_attentions=True).attentions
    weights = [chosen_by(one[0], ANSWER) for one in attentions]
    assert_equals(got, weights, torch.arange(ids.shape[1]), passages)


def test_both_decoders_leave_what_the_replay_needs_and_the_replay_leaves_it_alone(
    model: LoadedModel,
) -> None:
    """The blocks of transformers extend the prefill's cache, `FusedDecoder` does not."""
    scenario, sampling = SCENARIOS[1], SamplingParams.most_likely(6)
    passages, layers = halves(scenario.layout()), range(NUM_LAYERS)
    results = []
    for make_decoder in (None, lambda: FusedDecoder(model, FLOAT32)):
        prefill, _ = prefill_in_process(scenario, model)
        answer = list(generate_tokens(model, prefill, sampling, make_decoder))
        num_rows = [len(layer.positions) for layer in prefill.cache.layers]
        results.append(attribute_answer(model, prefill, answer, passages, layers))
        results.append(attribute_answer(model, prefill, answer, passages, layers))
        assert [len(layer.positions) for layer in prefill.cache.layers] == num_rows
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(("num_tokens", "ran"), [(1, []), (3, [0, 1, 2])])
def test_only_blocks_that_are_watched_run_again(
    num_tokens: int, ran: list[int], model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single token was chosen by the prompt's last query; nothing follows the last sync layer."""
    prefill, _ = prefill_in_process(SCENARIOS[1], model)
    attended: list[int] = []
    attend = WatchedRows.attend

    def note(view: WatchedRows, layer: int, *rest: Any) -> torch.Tensor:
        attended.append(layer)
        return attend(view, layer, *rest)

    monkeypatch.setattr(WatchedRows, "attend", note)
    got = attribute_answer(
        model, prefill, ANSWER[:num_tokens], halves(SCENARIOS[1].layout()), (0, 2)
    )
    assert attended == ran
    assert sum(got.shares) == pytest.approx(1)


def test_a_long_answer_is_watched_in_parts(model: LoadedModel) -> None:
    """130 tokens are three parts: the mean of all is the mean of what each token attends to."""
    scenario = SCENARIOS[1]
    prefill, _ = prefill_in_process(scenario, model)
    passages, answer = halves(scenario.layout()), ANSWER * 26
    got = attribute_answer(model, prefill, answer, passages, range(NUM_LAYERS))
    view = FullAttention(model, scenario.layout(), len(answer))
    ids = torch.tensor(scenario.joined() + answer)
    positions = torch.arange(len(ids))
    with torch.inference_mode():
        run_model(model.backbone, ids, positions, view)
    assert_equals(got, [chosen_by(one, answer) for one in view.noted], positions, passages)


def test_shares_are_among_the_passages_and_masses_of_everything(model: LoadedModel) -> None:
    scenario = SCENARIOS[1]
    prefill, _ = prefill_in_process(scenario, model)
    span = scenario.layout().members[0].span
    got = attribute_answer(model, prefill, ANSWER, [span], range(NUM_LAYERS))
    assert got.shares == pytest.approx([1.0])
    assert 0 < got.masses[0] < 1
    everything = [Span(0, prefill.next_position + len(ANSWER))]
    got = attribute_answer(model, prefill, ANSWER, everything, range(NUM_LAYERS))
    assert got.masses == pytest.approx([1.0], abs=TOLERANCE)


def test_influences_are_of_whole_members_whatever_their_passages(model: LoadedModel) -> None:
    scenario, layers = SCENARIOS[1], range(NUM_LAYERS)
    prefill, _ = prefill_in_process(scenario, model)
    spans = [member.span for member in scenario.layout().members]
    whole = attribute_answer(model, prefill, ANSWER, spans, layers, spans)
    total = sum(whole.masses)
    assert whole.influences == pytest.approx([mass / total for mass in whole.masses])
    passages = halves(scenario.layout())
    for some in (passages, []):
        got = attribute_answer(model, prefill, ANSWER, some, layers, spans)
        assert got.influences == whole.influences
        assert replace(got, influences=()) == attribute_answer(model, prefill, ANSWER, some, layers)


@pytest.mark.parametrize("layers", [(), (0, 2)])
def test_nothing_is_due_to_passages_that_were_never_seen(
    layers: tuple[int, ...], model: LoadedModel
) -> None:
    scenario = replace(SCENARIOS[1], plan="none", publisher_plan="none")
    prefill, _ = prefill_in_process(scenario, model)
    got = attribute_answer(model, prefill, ANSWER, halves(scenario.layout()), layers)
    assert set(got.shares) == set(got.masses) == {0.0}
    assert got.peak == 0.0


def test_no_passages_is_no_error(model: LoadedModel) -> None:
    prefill, _ = prefill_in_process(SCENARIOS[1], model)
    got = attribute_answer(model, prefill, ANSWER[:1], [], range(NUM_LAYERS))
    assert got.shares == got.masses == ()


def test_overlapping_passages_and_empty_answers_are_refused(model: LoadedModel) -> None:
    prefill, _ = prefill_in_process(SCENARIOS[1], model)
    with pytest.raises(ValueError, match="at least one"):
        attribute_answer(model, prefill, [], [Span(3, 5)], [0])
    for passages in ([Span(3, 6), Span(5, 7)], [Span(6, 7), Span(3, 5)]):
        with pytest.raises(ValueError, match="overlap or are out of token order"):
            attribute_answer(model, prefill, ANSWER, passages, [0])


@pytest.mark.parametrize("answer", [ANSWER, ANSWER[:1]])
@pytest.mark.parametrize("scenario", FILLED, ids=lambda scenario: scenario.name)
def test_alone_is_what_the_plan_none_would_say(
    scenario: Scenario, answer: list[int], model: LoadedModel
) -> None:
    prefill, _ = prefill_in_process(scenario, model)
    layout = scenario.layout()
    own = (layout.publisher.span, scenario.tokens()[2])
    got = log_probs_alone(model, prefill, own, answer, layout.prefix_len)
    alone = replace(scenario, plan="none", publisher_plan="none")
    logits = oracle_logits(model, alone.layout(), scenario.joined(), answer[:-1])[-len(answer) :]
    expected = torch.log_softmax(logits, -1)[torch.arange(len(answer)), torch.tensor(answer)]
    assert got == pytest.approx(expected.tolist(), abs=1e-4)


def test_alone_needs_the_whole_span_and_an_answer(model: LoadedModel) -> None:
    prefill, _ = prefill_in_process(SCENARIOS[1], model)
    span, token_ids = SCENARIOS[1].layout().publisher.span, SCENARIOS[1].tokens()[2]
    for own, answer in ((token_ids[:-1], ANSWER), (token_ids, [])):
        with pytest.raises(ValueError, match="own tokens and an answer"):
            log_probs_alone(model, prefill, (span, own), answer, 3)
