"""Every attack on texts whose rows stay with their owner, and what a setting does to answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedattn.core.compression import Compression
from fedattn.core.errors import ContextTooLongError, InvalidRequestError
from fedattn.model.engine import Engine
from fedattn.research.leak.asked import Asking, Conversation, interrogate, overhear, reconstruct
from fedattn.research.leak.attacks import Effort
from fedattn.research.leak.queries import QueryStyle
from fedattn.research.leak.run import Answers, Attack, Outcome, summarize_answers
from fedattn.research.simulate import SimulationSettings, Simulator
from fedattn.research.tasks.cases import Case

QUESTION = "What does the text say?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """What the attacker asks.

    Attributes:
        question: of the honest one, who listens.
        style: queries that the dishonest one makes up.
        is_guided: whether each token is sought behind the true ones, for `reconstruct`.
    """

    question: str
    style: QueryStyle
    is_guided: bool = False


class AskedAttacker:
    """Attacks texts that are asked in one way.

    Args:
        engine: the model.
        asking: how texts are asked.
        publisher: what is asked.
        effort: of each attack.
    """

    def __init__(
        self, engine: Engine, asking: Asking, publisher: Publisher, effort: Effort
    ) -> None:
        self._engine, self._asking = engine, asking
        self._publisher, self._effort = publisher, effort

    def run(self, text: str, attacks: Sequence[Attack]) -> Iterator[Outcome]:
        """Outcomes in the order of the attacks.

        Raises:
            InvalidRequestError: the text is empty, or its owner answers nowhere.
            ContextTooLongError: the text does not fit the model's window.
            CorruptFrameError: the owner's bounds refuse the queries.
        """
        engine = self._engine
        token_ids = engine.tokenizer.context(text)
        if not token_ids:
            raise InvalidRequestError("expected a text to attack, got an empty one")
        if not self._asking.plan.layers:
            raise InvalidRequestError("nothing is asked with this plan; name at least one block")
        if len(engine.tokenizer.prefix()) + len(token_ids) >= engine.model.max_positions:
            raise ContextTooLongError(
                f"the text has {len(token_ids)} tokens, but the model's window is "
                f"{engine.model.max_positions}; shorten it"
            )
        for attack in attacks:
            conversation = self._converse(attack, token_ids)
            recovery = reconstruct(
                engine.model,
                conversation,
                self._effort,
                self._asking.bounds.noise,
                is_guided=self._publisher.is_guided,
            )
            yield Outcome(
                attack=attack,
                num_tokens=len(recovery.truth),
                num_found=recovery.num_right,
                gaps=recovery.gaps,
                seconds=recovery.seconds,
                text=engine.tokenizer.decode(list(recovery.found)),
                num_query_tokens=conversation.num_tokens,
            )

    def _converse(self, attack: Attack, token_ids: list[int]) -> Conversation:
        engine, publisher = self._engine, self._publisher
        if attack is Attack.OVERHEARD:
            return overhear(
                engine.prefiller, engine.tokenizer, token_ids, publisher.question, self._asking
            )
        prefix = engine.tokenizer.prefix()
        return interrogate(engine.prefiller, prefix, token_ids, self._asking, publisher.style)


def score_asked(engine: Engine, asking: Asking, cases: Sequence[Case]) -> Answers:
    """Answer cases, at least one, whose contexts are asked in the same way."""
    simulator = Simulator(engine.prefiller, engine.tokenizer)
    settings = SimulationSettings(
        plans=asking.plans,
        compression=Compression(),
        asked=tuple(range(max(len(case.contexts) for case in cases))),
        query_codec=asking.codec.name,
        bounds=asking.bounds,
    )
    return summarize_answers(list(simulator.run(cases, settings)))
