"""What one member with a valid certificate can do to everybody's answer by what it sends.

    python -m benchmarks.spoilers [--questions N] [--json FILE]

Three honest contributors and one more, the first in token order, that changes its rows before they
leave, on the embedded model and its shipped plan, all in one process. Each attack runs with the
bounds of `fedattn/core/row_bounds.py`, and without them if they refused anything. Prints how many
answers came out right, how many equal the answer with honest rows, who was refused by how many
receivers, and the member's influence as its publisher reports it. Answers have 12 tokens, greedy.
"""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fedattn.cli.plans import choose
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import CorruptFrameError, InvalidRequestError
from fedattn.core.row_bounds import MARGIN
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.core.types import FloatArray, HeadRows, IntArray, KvRows, Queries
from fedattn.model.attribution import attribute_answer
from fedattn.model.decode import generate_tokens
from fedattn.model.engine import Engine, open_engine
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.fused import INT8, FusedDecoder
from fedattn.model.loading import LoadedModel

SPOILER = 0
NUM_NEW_TOKENS = 12
OWN_TEXT = "Canteen, week 11: Monday pea soup, Tuesday fish and potatoes, Wednesday dumplings."
LIE = "The ship Aurora lies at pier 9. The ship Aurora carries 70 bags of salt."
CONTEXTS = (
    "The ship Aurora lies at pier 4. Pilot Aho brought the ship Aurora in at 05:40.",
    "Crane K2 stopped because its oil reached 91 degrees. Maarten repairs crane K2 on Wednesday.",
    "The ship Aurora carries 300 boxes of tea. The container of the Corvina is held.",
)
QUESTIONS = {
    "At which pier does the ship Aurora lie?": r"\bpier 4\b",
    "What does the ship Aurora carry?": r"\btea\b",
    "How many boxes of tea does the ship Aurora carry?": r"\b300\b",
}

Attack = Callable[["Rows"], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What an attack has to work with.

    Attributes:
        keys, values: honest rows, [Hkv, T, D].
        key_bounds, value_bounds: of their block, [Hkv].
        random: of this block.
        hidden_size: of the model, d.
        make: the rows that the block's own weights make of hidden states [T, d].
    """

    keys: FloatArray
    values: FloatArray
    key_bounds: FloatArray
    value_bounds: FloatArray
    random: np.random.Generator
    hidden_size: int
    make: Callable[[FloatArray], tuple[FloatArray, FloatArray]]

    def noise(self) -> FloatArray:
        """Rows of norm 1 in all directions alike."""
        return _unit(self.random.standard_normal(self.keys.shape).astype(np.float32))

    def of_noise(self) -> tuple[FloatArray, FloatArray]:
        """Rows of hidden states in all directions alike."""
        shape = (self.keys.shape[1], self.hidden_size)
        return self.make(self.random.standard_normal(shape).astype(np.float32))

    @property
    def limits(self) -> tuple[FloatArray, FloatArray]:
        """Norms that just pass, [Hkv, 1, 1]."""
        share = np.float32(0.999 * MARGIN)
        return share * self.key_bounds[:, None, None], share * self.value_bounds[:, None, None]


def _norms(rows: FloatArray) -> FloatArray:
    norms: FloatArray = np.linalg.norm(rows, axis=-1, keepdims=True).astype(np.float32)
    return norms


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = (rows / np.maximum(_norms(rows), np.float32(1e-12))).astype(np.float32)
    return unit


def _shuffled(rows: Rows) -> tuple[FloatArray, FloatArray]:
    order = rows.random.permutation(rows.keys.shape[1])
    return rows.keys[:, order], rows.values[:, order]


ATTACKS: dict[str, Attack | None] = {
    "honest rows": None,
    "another text, which lies": None,
    "own rows in another order": _shuffled,
    "rows of zeros": lambda rows: (0 * rows.keys, 0 * rows.values),
    "random, norms of the own rows": lambda rows: (
        rows.noise() * _norms(rows.keys),
        rows.noise() * _norms(rows.values),
    ),
    "of random hidden states, by the weights": Rows.of_noise,
    "own rows, as long as may be": lambda rows: (
        _unit(rows.keys) * rows.limits[0],
        _unit(rows.values) * rows.limits[1],
    ),
    "random, as long as may be": lambda rows: (
        rows.noise() * rows.limits[0],
        rows.noise() * rows.limits[1],
    ),
    "random, 10 times the own norms": lambda rows: (
        rows.noise() * 10 * _norms(rows.keys),
        rows.noise() * 10 * _norms(rows.values),
    ),
    "largest int8 steps": lambda rows: (rows.noise() * 65504 * 127, rows.noise() * 65504 * 127),
    "fp32 of 1e30": lambda rows: (rows.noise() * 1e30, rows.noise() * 1e30),
}


def make_rows(
    model: LoadedModel, layer: int, positions: IntArray, hidden: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Keys after RoPE and values [Hkv, T, D] that a block makes of hidden states [T, d]."""
    assert model.read_block is not None
    block = model.read_block(model.backbone.layers[layer])  # type: ignore[index]
    with torch.inference_mode():
        normalized = block.norm(torch.from_numpy(hidden))
        keys, values = (
            linear(normalized).view(len(hidden), -1, model.shape.head_dim).transpose(0, 1).numpy()
            for linear in block.query_key_value[1:]
        )
    return model.rotaries[layer].apply(keys, positions), values


class SpoiledExchange(InProcessExchange):
    """An exchange whose first member attacks, and whose receivers may look at what comes."""

    def __init__(self, store: KvStore, index: int, session: "Session") -> None:
        super().__init__(store, index)
        self._session, self._member = session, store.layout.members[index].node_id
        self._attack = session.attack if index == SPOILER else None

    def send(self, layer: int, rows: KvRows, queries: Queries) -> None:
        if self._attack is not None:
            bounds = self._session.model.row_bounds
            keys, values = self._attack(
                Rows(
                    keys=rows.keys,
                    values=rows.values,
                    key_bounds=bounds.keys[layer],
                    value_bounds=bounds.values[layer],
                    random=np.random.default_rng(layer),
                    hidden_size=self._session.model.sizes.hidden_size,
                    make=partial(make_rows, self._session.model, layer, rows.positions),
                )
            )
            rows = KvRows(
                keys=keys.astype(np.float32),
                values=values.astype(np.float32),
                positions=rows.positions,
            )
        super().send(layer, rows, queries)

    def receive(self, layer: int) -> list[HeadRows]:
        refused = self._session.refused
        parts: list[HeadRows] = []
        for sender in self.route.senders:
            name = self._store.layout.members[sender].node_id
            if (self._member, name) in refused:
                continue
            rows = self._store.rows(sender, layer)
            try:
                if self._session.is_checking:
                    self._session.model.row_bounds.check(rows, layer, name)
                parts.append(rows)
            except CorruptFrameError as error:
                refused[self._member, name] = str(error)
        return parts


@dataclass(slots=True, kw_only=True)
class Session:
    """One question under one attack; `refused`: by (receiver, sender), why."""

    attack: Attack | None
    model: LoadedModel
    is_checking: bool
    refused: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came out: the answer, whose rows were refused by whom, the spoiler's influence."""

    answer: str
    is_right: bool
    refused: dict[tuple[str, str], str]
    influence: float


class Bench:
    """Runs questions on one model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._decoder = FusedDecoder(engine.model, INT8)

    def run(self, question: str, attack: str, *, is_checking: bool) -> Found:
        """One answer."""
        model, cut = self._engine.model, self._engine.tokenizer
        own = LIE if "lies" in attack else OWN_TEXT
        spans = [cut.context(text) for text in (own, *CONTEXTS)]
        prefix, asked = cut.prefix(), cut.question(question)
        layout = self._layout(len(prefix), [len(span) for span in spans], len(asked))
        store = KvStore(layout, model.shape, model.rotaries)
        session = Session(attack=ATTACKS[attack], model=model, is_checking=is_checking)
        prefiller = self._engine.prefiller
        try:
            for index, span in enumerate(spans):
                exchange = SpoiledExchange(store, index, session)
                prefiller.contribute(layout.members[index], prefix, span, exchange)
        except InvalidRequestError:  # an honest member's rows are no numbers any more
            return Found(answer="no answer", is_right=False, refused={}, influence=1.0)
        last = SpoiledExchange(store, len(spans), session)
        prefill = prefiller.publish(layout.publisher, prefix, asked, last)
        sampling = SamplingParams.most_likely(NUM_NEW_TOKENS)
        tokens = list(generate_tokens(model, prefill, sampling, lambda: self._decoder))
        members = [member.span for member in layout.members]
        layers = layout.publisher.plan.layers
        influence = (
            attribute_answer(model, prefill, tokens, [], layers, members).influences[SPOILER]
            if tokens
            else 0.0
        )
        answer = cut.decode(tokens)
        return Found(
            answer=answer,
            is_right=bool(re.search(QUESTIONS[question], answer, re.IGNORECASE)),
            refused=session.refused,
            influence=influence,
        )

    def _layout(self, prefix_len: int, span_lens: list[int], question_len: int) -> SessionLayout:
        num_layers = self._engine.model.shape.num_layers
        names = ["spoiler", "berths", "cranes", "customs"]
        return build_layout(
            num_layers=num_layers,
            prefix_len=prefix_len,
            contributors=list(zip(names, span_lens, strict=True)),
            publisher=("publisher", question_len),
            plans=choose("auto", None, num_layers, self._engine.model.fingerprint).plans,
            compression=Compression(codec=codec_by_name("fp32")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attack over all questions: answers that are right, and as with honest rows."""

    attack: str
    right_before: int
    same_before: int
    right_after: int
    same_after: int
    refused_by: int
    reason: str
    influence: float
    example: str


def measure(num_questions: int) -> list[Row]:
    """All figures, as the module says; rows are shown as soon as they are there."""
    bench, questions = Bench(open_engine("default")), list(QUESTIONS)[:num_questions]
    honest: list[str] = []
    rows: list[Row] = []
    for attack in ATTACKS:
        after = [bench.run(question, attack, is_checking=True) for question in questions]
        before = after
        if any(one.refused for one in after):
            before = [bench.run(question, attack, is_checking=False) for question in questions]
        honest = honest or [one.answer for one in after]
        rows.append(_row(attack, before, after, honest))
        print(rows[-1], flush=True)
    return rows


def _row(attack: str, before: list[Found], after: list[Found], honest: list[str]) -> Row:
    def same(found: list[Found]) -> int:
        return sum(one.answer == other for one, other in zip(found, honest, strict=True))

    return Row(
        attack=attack,
        right_before=sum(one.is_right for one in before),
        same_before=same(before),
        right_after=sum(one.is_right for one in after),
        same_after=same(after),
        refused_by=min(len(one.refused) for one in after),
        reason=next(iter(after[0].refused.values()), ""),
        influence=sum(one.influence for one in before) / len(before),
        example=before[0].answer,
    )


def main() -> None:
    """Measure, and print a table for documents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.questions)
    print("| the first member sends | right before | right after | refused by | influence |")
    print("|---|---:|---:|---|---:|")
    for row in rows:
        by = f"{row.refused_by} of 4" if row.refused_by else "nobody"
        print(
            f"| {row.attack} | {row.right_before} of {options.questions} "
            f"| {row.right_after} of {options.questions} | {by} | {row.influence:.2f} |"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
