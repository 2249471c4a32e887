"""Running cases over the in-process exchange, for evaluation without a network."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.asked import DEFAULT_QUERY_CODEC, query_codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import ContextTooLongError, InvalidRequestError
from fedattn.core.plans import RolePlans
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import PrefixMode, SessionLayout, build_layout
from fedattn.core.visibility import KeptPositions
from fedattn.model.decode import answer_log_probs, answer_nll
from fedattn.model.exchange import InProcessExchange, KvExchange, KvStore
from fedattn.model.prefill import Prefiller, PrefillResult
from fedattn.model.prompt import PromptTokenizer
from fedattn.research.greedy import GreedyAnswers
from fedattn.research.responder import answer_as
from fedattn.research.tasks.cases import Case, is_right

MakeExchange = Callable[[KvStore, int], KvExchange]
"""The exchange of one participant, from the session's store and its place in token order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """How cases are run. Decoding is greedy.

    Attributes:
        plans: sync plan of each role.
        compression: what is left out, and the codec.
        scorer: says which rows matter; None if nothing of `compression` asks for it.
        prefix: public, or owned by the first contributor.
        max_new_tokens: most tokens to decode.
        responder: who answers, from 1 in token order; None for the publisher, who is last.
        independent: contributors compute as if each followed the public prefix alone.
        asked: contributors, from 0, whose rows stay with them.
        query_codec: how queries to them, and what they make of rows, are written.
        bounds: that they set to queries and answers; None for those that change no honest one.
    """

    plans: RolePlans
    compression: Compression
    scorer: RowScorer | None = None
    prefix: PrefixMode = PrefixMode.PUBLIC
    max_new_tokens: int = 32
    responder: int | None = None
    independent: bool = False
    asked: tuple[int, ...] = ()
    query_codec: str = DEFAULT_QUERY_CODEC
    bounds: AnswerBounds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTrace:
    """Everything needed to check the mathematics elsewhere.

    Attributes:
        token_ids: the joined prompt, public prefix first.
        layout: spans and plans over it.
        kept: global positions whose rows travelled, by (participant, layer), for each head.
        generated: greedy answer tokens.
        answer: tokens of the given answer, which follow the prompt for its likelihood.
    """

    token_ids: list[int]
    layout: SessionLayout
    kept: KeptPositions
    generated: list[int]
    answer: list[int]

    def to_json(self) -> dict[str, Any]:
        return {
            "token_ids": self.token_ids,
            "prefix_len": self.layout.prefix_len,
            "spans": [
                {
                    "node_id": member.node_id,
                    "role": member.role.value,
                    "start": member.span.start,
                    "stop": member.span.stop,
                    "sync_layers": list(member.plan.layers),
                    "input_positions": member.input_positions().tolist(),
                    "kept_positions": {
                        str(layer): [positions.tolist() for positions in of_heads]
                        for (owner, layer), of_heads in sorted(self.kept.items())
                        if owner == index
                    },
                }
                for index, member in enumerate(self.layout.members)
            ],
            "generated_ids": self.generated,
            "answer_ids": self.answer,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What centralised answers, and how likely it thought each token.

    Attributes:
        tokens: greedy answer, A of them.
        log_probs: [A, V] float32 of the distribution before each.
    """

    tokens: list[int]
    log_probs: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """Outcome of one case.

    Attributes:
        text: what was decoded.
        match: whether the given answer occurs in it, ignoring case.
        nll: mean negative log-likelihood of the given answer, nats a token.
        divergence: mean KL divergence a token from a reference along its answer, nats; None if
            there was no reference.
        kv_bytes: bytes of all frames contributors sent, headers included.
        logits: [V] float32 for the first answer token.
        reference: its own answer to tell others' divergence from, if asked for.
        trace: tokens and spans.
    """

    text: str
    match: bool
    nll: float
    divergence: float | None
    kv_bytes: int
    logits: torch.Tensor = field(repr=False)
    reference: Reference | None = field(repr=False)
    trace: TokenTrace = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseTokens:
    """A case cut into spans of token ids.

    Attributes:
        prefix: public prefix.
        contexts: one span a contributor.
        question: the publisher's span.
        answer: the given answer, for its likelihood.
    """

    prefix: list[int]
    contexts: list[list[int]]
    question: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefilledCase:
    """A case up to where its answer begins.

    Attributes:
        tokens: the spans as they were run.
        prefill: what to decode from.
        store: what was exchanged.
        is_reused: whether the contributors' rows were those of the case before.
    """

    tokens: CaseTokens
    prefill: PrefillResult
    store: KvStore
    is_reused: bool


class Simulator:
    """Runs cases on one model, all participants in this process.

    Args:
        prefiller: of the model.
        tokenizer: of the model.
        make_exchange: the exchange of a participant, from the session's store and its place.
    """

    def __init__(
        self,
        prefiller: Prefiller,
        tokenizer: PromptTokenizer,
        make_exchange: MakeExchange = InProcessExchange,
    ) -> None:
        self._prefiller = prefiller
        self._tokenizer = tokenizer
        self._make_exchange = make_exchange
        self._answers = GreedyAnswers(prefiller.model)
        self._last: tuple[tuple[object, ...], KvStore] | None = None

    def run(self, cases: Iterable[Case], settings: SimulationSettings) -> Iterator[CaseResult]:
        """Results in the order of the cases, each as soon as it is there.

        Raises:
            InvalidPlanError: a sync layer is out of range.
            InvalidRequestError: there is no such responder.
            ContextTooLongError: a joined prompt does not fit the model's window.
        """
        for case in cases:
            yield self.run_case(case, settings)

    def run_case(self, case: Case, settings: SimulationSettings) -> CaseResult:
        """Run one case; raises as `run`."""
        return self.run_tokens(self.cut(case), settings, lambda text: is_right(text, case))

    def cut(self, case: Case) -> CaseTokens:
        """The spans of a case."""
        return CaseTokens(
            prefix=self._tokenizer.prefix(),
            contexts=[self._tokenizer.context(text) for text in case.contexts],
            question=self._tokenizer.question(case.question),
            answer=self._tokenizer.plain(case.answer),
        )

    def run_tokens(
        self,
        tokens: CaseTokens,
        settings: SimulationSettings,
        grade: Callable[[str], bool],
        reference: Reference | None = None,
        *,
        as_reference: bool = False,
    ) -> CaseResult:
        """Run one case that is cut already; raises as `run`.

        Args:
            tokens: the spans.
            settings: how to run it.
            grade: says whether a decoded text is right.
            reference: what to tell the divergence from; None for none.
            as_reference: whether others' divergence from this run will be asked for.
        """
        prefilled = self.prefill(tokens, settings)
        tokens, prefill, store = prefilled.tokens, prefilled.prefill, prefilled.store
        model = self._prefiller.model
        nll = answer_nll(model, prefill, tokens.answer)
        divergence, own = None, None
        if reference is None:
            generated = self._answers.decode(prefill, settings.max_new_tokens)
        else:
            generated, log_probs = self._answers.follow(
                prefill, reference.tokens, settings.max_new_tokens
            )
            divergence = _divergence(reference, log_probs)
        if as_reference and generated:
            own = Reference(generated, answer_log_probs(model, prefill, generated))
        text = self._tokenizer.decode(generated)
        spans = chain(*tokens.contexts)
        return CaseResult(
            text=text,
            match=grade(text),
            nll=nll,
            divergence=divergence,
            kv_bytes=store.uploaded_bytes,
            logits=prefill.logits,
            reference=own,
            trace=TokenTrace(
                token_ids=[*tokens.prefix, *spans, *tokens.question],
                layout=store.layout,
                kept=store.kept_positions(),
                generated=generated,
                answer=tokens.answer,
            ),
        )

    def prefill(self, tokens: CaseTokens, settings: SimulationSettings) -> PrefilledCase:
        """Run a case up to where its answer begins; raises as `run`.

        Rows of contributors are kept for the next case, which may have the same contexts.
        """
        if settings.prefix is PrefixMode.FIRST:
            tokens = _give_prefix_away(tokens)
        layout = self._lay_out(tokens, settings)
        self._check_window(layout, max(settings.max_new_tokens, len(tokens.answer)))
        responder = _place(settings.responder, layout)
        model = self._prefiller.model
        store = KvStore(
            layout,
            model.shape,
            model.rotaries,
            responder,
            scorer=settings.scorer,
            windows=model.windows,
            query_codec=query_codec_by_name(settings.query_codec),
            bounds=settings.bounds or AnswerBounds(lengths=model.row_bounds),
        )
        what = (tokens.prefix, tokens.contexts, settings)
        is_reused = settings.responder is None and self._last is not None and self._last[0] == what
        if is_reused and self._last is not None:
            store.adopt(self._last[1])
        prefill = self._prefill(tokens, store, responder, has_rows=is_reused)
        self._last = what, store
        return PrefilledCase(tokens=tokens, prefill=prefill, store=store, is_reused=is_reused)

    def _prefill(
        self, tokens: CaseTokens, store: KvStore, responder: int, *, has_rows: bool
    ) -> PrefillResult:
        """What the responder decodes from."""
        layout, answering = store.layout, None
        for index, token_ids in enumerate([] if has_rows else tokens.contexts):
            member, exchange = layout.members[index], self._make_exchange(store, index)
            if index == responder:
                rows = self._prefiller.prefill_as_responder(
                    member, tokens.prefix, token_ids, exchange
                )
                answering = member, rows
            else:
                self._prefiller.contribute(member, tokens.prefix, token_ids, exchange)
        last = self._make_exchange(store, len(tokens.contexts))
        prefill = self._prefiller.publish(layout.publisher, tokens.prefix, tokens.question, last)
        return prefill if answering is None else answer_as(*answering, prefill, layout)

    def _lay_out(self, tokens: CaseTokens, settings: SimulationSettings) -> SessionLayout:
        return build_layout(
            num_layers=self._prefiller.shape.num_layers,
            prefix_len=len(tokens.prefix),
            contributors=[
                (f"contributor-{i + 1}", len(span)) for i, span in enumerate(tokens.contexts)
            ],
            publisher=("publisher", len(tokens.question)),
            plans=settings.plans,
            compression=settings.compression,
            independent=settings.independent,
            asked=[f"contributor-{i + 1}" for i in settings.asked],
        )

    def _check_window(self, layout: SessionLayout, num_new: int) -> None:
        limit = self._prefiller.model.max_positions
        if layout.num_tokens + num_new > limit:
            raise ContextTooLongError(
                f"the joined prompt has {layout.num_tokens} tokens and {num_new} may follow, but "
                f"the model's window is {limit}; shorten the contexts"
            )


def _place(responder: int | None, layout: SessionLayout) -> int:
    """Place of the participant who answers."""
    count = len(layout.members)
    if responder is not None and not 1 <= responder <= count:
        raise InvalidRequestError(
            f"responder: expected 1 to {count}, the publisher, got {responder}"
        )
    return (responder or count) - 1


def _divergence(reference: Reference, log_probs: torch.Tensor) -> float:
    """Mean KL divergence a token, reference || log_probs, nats."""
    expected = reference.log_probs
    return float((expected.exp() * (expected - log_probs)).sum(dim=-1).mean())


def _give_prefix_away(tokens: CaseTokens) -> CaseTokens:
    """The first participant owns the prefix (the paper's code)."""
    prefix, contexts, question = tokens.prefix, tokens.contexts, tokens.question
    if contexts:
        contexts = [prefix + contexts[0], *contexts[1:]]
    else:
        question = prefix + question
    return replace(tokens, prefix=[], contexts=contexts, question=question)


def summarize(results: list[CaseResult], *, with_tokens: bool) -> dict[str, Any]:
    """Means over all cases, and every case."""
    count = len(results)
    return {
        "exact_match": sum(result.match for result in results) / count,
        "nll": sum(result.nll for result in results) / count,
        "kv_bytes": sum(result.kv_bytes for result in results),
        "cases": [
            {
                "text": result.text,
                "match": result.match,
                "nll": result.nll,
                "kv_bytes": result.kv_bytes,
                **(result.trace.to_json() if with_tokens else {}),
            }
            for result in results
        ],
    }
