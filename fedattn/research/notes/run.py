"""Asking questions over notes under several ways to choose and to exchange, all in one process."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.plans import RolePlans
from fedattn.core.row_scores import RowScorer
from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import generate_tokens
from fedattn.model.engine import Engine
from fedattn.model.placement import choose_decoder
from fedattn.research.notes.cases import NotesCase
from fedattn.research.notes.passages import ChosenNote, NotesLibrary, Selection
from fedattn.research.simulate import CaseTokens, PrefilledCase, SimulationSettings, Simulator


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesVariant:
    """One way to answer.

    Attributes:
        name: unique.
        selection: how passages are chosen.
        plans: of the exchange.
        compression: of the rows.
        scorer: says which rows matter; None if nothing of `compression` asks for it.
        alone: whether the publisher has its own passages only.
        independent: contributors compute as if each followed the public prefix alone.
        splits_passages: whether each passage is computed by itself, behind the public prefix.
        rounds: how often passages are chosen; after the first with the words of the answer too.
        sampling: how tokens are chosen.
    """

    name: str
    selection: Selection
    plans: RolePlans
    compression: Compression = field(
        default_factory=lambda: Compression(codec=codec_by_name("fp32"))
    )
    scorer: RowScorer | None = None
    alone: bool = False
    independent: bool = False
    splits_passages: bool = False
    rounds: int = 1
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(max_new_tokens=32))


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesScore:
    """One question under one variant.

    Attributes:
        id: of the question.
        kind: of it.
        answer: what was decoded.
        is_right: whether it is accepted.
        is_there: whether what takes part of the nodes that are needed holds an accepted answer.
        num_tokens: of the joined prompt.
        num_passages: that took part.
        num_silent: nodes without a passage that fits.
        kv_bytes: of all frames.
        prefill_s: of all nodes, one after the other, until the first token is there; None if rows
            of the question before could be used.
        decode_s: of the answer.
    """

    id: str
    kind: str
    answer: str
    is_right: bool
    is_there: bool
    num_tokens: int
    num_passages: int
    num_silent: int
    kv_bytes: int
    prefill_s: float | None
    decode_s: float


class NotesRuns:
    """Runs questions on one model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._library = NotesLibrary(engine.tokenizer)
        self._simulator = Simulator(engine.prefiller, engine.tokenizer)
        self._make_decoder = cache(choose_decoder("auto", engine.model))

    def run(self, cases: Iterable[NotesCase], variant: NotesVariant) -> Iterator[NotesScore]:
        """Scores in the order of the cases."""
        for case in cases:
            yield self._run_case(case, variant)

    def _run_case(self, case: NotesCase, variant: NotesVariant) -> NotesScore:
        score = self._ask(case, variant, "")
        for _ in range(variant.rounds - 1):
            again = self._ask(case, variant, score.answer)
            score = replace(
                again,
                kv_bytes=again.kv_bytes + score.kv_bytes,
                prefill_s=_total(score.prefill_s, score.decode_s, again.prefill_s),
            )
        return score

    def _ask(self, case: NotesCase, variant: NotesVariant, known: str) -> NotesScore:
        more = dict.fromkeys(case.folders, known) if known else {}
        question = self._engine.tokenizer.question(case.question.question)
        chosen = self._library.choose(case, variant.selection, more)
        chosen = self._fit(chosen, variant, len(question))
        begun = time.perf_counter()
        prefilled = self._prefill(case, chosen, variant)
        prefilled_at = time.perf_counter()
        model = self._engine.model
        generated = list(
            generate_tokens(model, prefilled.prefill, variant.sampling, self._make_decoder)
        )
        ended = time.perf_counter()
        answer = self._engine.tokenizer.decode(generated)
        return NotesScore(
            id=case.question.id,
            kind=case.question.kind,
            answer=answer,
            is_right=case.question.is_right(answer),
            is_there=_is_there(case, chosen),
            num_tokens=prefilled.store.layout.num_tokens,
            num_passages=sum(len(one.passages) for one in chosen),
            num_silent=sum(not one.passages for one in chosen[:-1]),
            kv_bytes=prefilled.store.uploaded_bytes,
            prefill_s=None if prefilled.is_reused else prefilled_at - begun,
            decode_s=ended - prefilled_at,
        )

    def _fit(
        self, chosen: list[ChosenNote], variant: NotesVariant, question_len: int
    ) -> list[ChosenNote]:
        """Without what does not fit: the end of the publisher's text, then contributors."""
        room = self._engine.model.max_positions - len(self._engine.tokenizer.prefix())
        room -= variant.sampling.max_new_tokens + question_len
        own = _cut(chosen[-1], room)
        room -= len(own.token_ids)
        kept: list[ChosenNote] = []
        for one in chosen[:-1]:
            fits = len(one.token_ids) <= room and not variant.alone
            room -= len(one.token_ids) if fits else 0
            kept.append(one if fits else replace(one, passages=(), tokens=()))
        return [*kept, own]

    def _prefill(
        self, case: NotesCase, chosen: list[ChosenNote], variant: NotesVariant
    ) -> PrefilledCase:
        *others, own = chosen
        if variant.splits_passages:
            spans = [list(tokens) for one in others for tokens in one.tokens]
        else:
            spans = [one.token_ids for one in others if one.tokens]
        tokenizer = self._engine.tokenizer
        tokens = CaseTokens(
            prefix=tokenizer.prefix(),
            contexts=spans,
            question=own.token_ids + tokenizer.question(case.question.question),
            answer=[],
        )
        settings = SimulationSettings(
            plans=variant.plans,
            compression=variant.compression,
            scorer=variant.scorer,
            max_new_tokens=variant.sampling.max_new_tokens,
            independent=variant.independent or variant.splits_passages,
        )
        return self._simulator.prefill(tokens, settings)


def _cut(note: ChosenNote, room: int) -> ChosenNote:
    """Its first passages, as many as have room."""
    num_kept = 0
    for tokens in note.tokens:
        room -= len(tokens)
        if room < 0:
            break
        num_kept += 1
    return replace(note, passages=note.passages[:num_kept], tokens=note.tokens[:num_kept])


def _is_there(case: NotesCase, chosen: list[ChosenNote]) -> bool:
    """Whether the passages of a node that carries the answer hold an accepted one."""
    needed = {node_id for node_id, _ in case.question.needs}
    return any(
        case.question.is_right(passage.text)
        for one in chosen
        if one.node_id in needed
        for passage in one.passages
    )


def _total(*parts: float | None) -> float | None:
    """The sum, if all are known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
