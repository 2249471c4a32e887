"""Every attack on every text, and what the same setting does to answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import mean, median
from typing import Any, assert_never

from fedattn.core.errors import InvalidRequestError
from fedattn.model.engine import Engine
from fedattn.research.leak.attacks import Effort, Recovery, look_up, replay
from fedattn.research.leak.guess import Guess, guess
from fedattn.research.leak.pieces import Piece, Withheld, find_pieces
from fedattn.research.leak.received import Received, Sending, receive_rows
from fedattn.research.leak.repeat import repeat
from fedattn.research.simulate import CaseResult, SimulationSettings, Simulator
from fedattn.research.tasks.cases import Case


class Attack(StrEnum):
    """What is tried.

    LOOKUP: block 0 against every token of the vocabulary.
    REPLAY: token by token, behind what was found so far.
    MIDDLE: the same from the middle of a text of whose first half nothing is known.
    REPEAT: a question that asks for the text.
    WITHHELD: every candidate for a withheld piece, by the rows behind it.
    OVERHEARD: rows that stay, by what an honest publisher hears of them for one question.
    CHOSEN: the same by queries that were made up for it.
    """

    LOOKUP = "lookup"
    REPLAY = "replay"
    MIDDLE = "middle"
    REPEAT = "repeat"
    WITHHELD = "withheld"
    OVERHEARD = "overheard"
    CHOSEN = "chosen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one attack made of one text.

    Attributes:
        attack: which.
        num_tokens: tokens that could have been found.
        num_found: tokens that were found in their places; of REPEAT, in their order.
        num_by_chance: of REPEAT, tokens that the answer has in order without any row; else None.
        gaps: as `Recovery.gaps`; none of REPEAT. Of WITHHELD, `Guess.margin` of each piece.
        seconds: wall time.
        text: what was found, as a text.
        guesses: of WITHHELD, one a piece.
        num_query_tokens: of OVERHEARD and CHOSEN, tokens whose queries were asked at every block.
    """

    attack: Attack
    num_tokens: int
    num_found: int
    num_by_chance: int | None = None
    gaps: tuple[float, ...] = ()
    seconds: float
    text: str
    guesses: tuple[Guess, ...] = ()
    num_query_tokens: int | None = None

    def to_json(self) -> dict[str, Any]:
        guesses = [_guess_json(guess) for guess in self.guesses]
        asked = self.num_query_tokens
        return {
            "attack": self.attack.value,
            "tokens": self.num_tokens,
            "found": self.num_found,
            "by_chance": self.num_by_chance,
            "gaps": [round(gap, 4) for gap in self.gaps],
            "seconds": round(self.seconds, 2),
            "text": self.text,
            **({"guesses": guesses} if guesses else {}),
            **({} if asked is None else {"query_tokens": asked}),
        }


def _guess_json(guess: Guess) -> dict[str, Any]:
    return {
        "candidates": guess.num_candidates,
        "rows": guess.num_rows,
        "rank": guess.rank,
        "rank_by_distance": guess.rank_by_distance,
        "margin": round(guess.margin, 4),
        "seconds": round(guess.seconds, 2),
    }


class Attacker:
    """Attacks texts whose rows travel in one way.

    Args:
        engine: the model.
        sending: how rows travel.
        effort: of each attack.
        withheld: tokens whose rows stay; None for none. REPEAT asks with all rows.
    """

    def __init__(
        self,
        engine: Engine,
        sending: Sending,
        effort: Effort,
        withheld: Withheld | None = None,
    ) -> None:
        self._engine, self._sending, self._effort = engine, sending, effort
        self._withheld = withheld

    def run(self, text: str, attacks: Sequence[Attack]) -> Iterator[Outcome]:
        """Outcomes in the order of the attacks; without those that cannot be tried here.

        Raises:
            InvalidRequestError: the text is empty, no rows travel, or what is withheld is not in
                the text or cannot be guessed.
            ContextTooLongError: the text does not fit the model's window.
        """
        engine = self._engine
        token_ids = engine.tokenizer.context(text)
        if not token_ids:
            raise InvalidRequestError("expected a text to attack, got an empty one")
        prefix = engine.tokenizer.prefix()
        pieces = find_pieces(engine.tokenizer, text, self._withheld) if self._withheld else []
        withheld = {index for piece in pieces for index in piece.tokens}
        received = receive_rows(engine.prefiller, prefix, token_ids, self._sending, withheld)
        for attack in attacks:
            if attack is Attack.REPEAT:
                yield self._repeat(token_ids)
            elif attack is Attack.WITHHELD:
                yield self._guess(received, pieces)
            elif (recovery := self._recover(attack, received)) is not None:
                yield self._outcome(attack, recovery)

    def _recover(self, attack: Attack, received: Received) -> Recovery | None:
        model = self._engine.model
        match attack:
            case Attack.LOOKUP:
                return look_up(model, received)
            case Attack.REPLAY:
                return replay(model, received, self._effort)
            case Attack.MIDDLE:
                return replay(model, received, self._effort, skip=len(received.truth) // 2)
            case Attack.REPEAT | Attack.WITHHELD | Attack.OVERHEARD | Attack.CHOSEN:
                raise ValueError(f"{attack} does not go through the rows of a text")
            case _:
                assert_never(attack)

    def _outcome(self, attack: Attack, recovery: Recovery) -> Outcome:
        return Outcome(
            attack=attack,
            num_tokens=len(recovery.truth),
            num_found=recovery.num_right,
            gaps=recovery.gaps,
            seconds=recovery.seconds,
            text=self._engine.tokenizer.decode(list(recovery.found)),
        )

    def _guess(self, received: Received, pieces: Sequence[Piece]) -> Outcome:
        model, decode = self._engine.model, self._engine.tokenizer.decode
        guesses = tuple(guess(model, received, piece, self._effort) for piece in pieces)
        return Outcome(
            attack=Attack.WITHHELD,
            num_tokens=sum(len(one.truth) for one in guesses),
            num_found=sum(one.num_right for one in guesses),
            gaps=tuple(one.margin for one in guesses),
            seconds=sum(one.seconds for one in guesses),
            text=" ".join(decode(list(one.found)).strip() for one in guesses),
            guesses=guesses,
        )

    def _repeat(self, token_ids: list[int]) -> Outcome:
        engine = self._engine
        answered = repeat(engine.prefiller, engine.tokenizer, token_ids, self._sending)
        return Outcome(
            attack=Attack.REPEAT,
            num_tokens=answered.num_tokens,
            num_found=answered.num_found,
            num_by_chance=answered.num_found_alone,
            seconds=answered.seconds,
            text=answered.text,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One attack over all texts.

    Attributes:
        attack: which.
        found: share of all tokens.
        by_chance: the same share without any row; None if it was not asked.
        mean_gap, median_gap: over all rows that were compared; None if none were.
        seconds: of all texts.
        ranks: of WITHHELD, the rank of each truth; empty of others.
        ranks_by_distance: the same by distance alone.
    """

    attack: Attack
    found: float
    by_chance: float | None
    mean_gap: float | None
    median_gap: float | None
    seconds: float
    ranks: tuple[int, ...] = ()
    ranks_by_distance: tuple[int, ...] = ()


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """The outcomes of one attack, at least one, as one."""
    gaps = [gap for outcome in outcomes for gap in outcome.gaps]
    guesses = [guess for outcome in outcomes for guess in outcome.guesses]
    tokens = sum(outcome.num_tokens for outcome in outcomes)
    chances = [outcome.num_by_chance for outcome in outcomes if outcome.num_by_chance is not None]
    return Summary(
        attack=outcomes[0].attack,
        found=sum(outcome.num_found for outcome in outcomes) / tokens,
        by_chance=sum(chances) / tokens if chances else None,
        mean_gap=mean(gaps) if gaps else None,
        median_gap=median(gaps) if gaps else None,
        seconds=sum(outcome.seconds for outcome in outcomes),
        ranks=tuple(guess.rank for guess in guesses),
        ranks_by_distance=tuple(guess.rank_by_distance for guess in guesses),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a setting leaves of answers.

    Attributes:
        num_cases: questions asked.
        num_right: of these, answered rightly.
        nll: mean negative log-likelihood of the given answers, nats a token.
        kv_bytes: of all frames, a case.
    """

    num_cases: int
    num_right: int
    nll: float
    kv_bytes: float


def score_answers(engine: Engine, sending: Sending, cases: Sequence[Case]) -> Answers:
    """Answer cases, at least one, with rows that travel in the same way."""
    simulator = Simulator(engine.prefiller, engine.tokenizer, sending.make_exchange)
    settings = SimulationSettings(
        plans=sending.plans, compression=sending.compression, scorer=sending.scorer
    )
    return summarize_answers(list(simulator.run(cases, settings)))


def summarize_answers(results: Sequence[CaseResult]) -> Answers:
    """Results, at least one, as one."""
    return Answers(
        num_cases=len(results),
        num_right=sum(result.match for result in results),
        nll=mean(result.nll for result in results),
        kv_bytes=mean(result.kv_bytes for result in results),
    )
