"""Whether what a client saw is honest."""

from dataclasses import dataclass, field

from fedattn.core.report import Outcome
from fedattn.rest.answers import QueryAnswer
from tests.chaos.asking import GUARD_S, Asking
from tests.chaos.faults import Fault, Phase
from tests.chaos.federation import NODES

_WHOLE = {Outcome.COMPLETE}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a client saw, in a few words, and what is wrong with it, if anything."""

    saw: str
    wrong: str = ""


@dataclass(slots=True)
class Judge:
    """Knows what was answered when nothing was wrong.

    The same spans in the same order are the same words, whatever happens meanwhile: answers are
    greedy, and every row travels exactly.
    """

    _answers: dict[tuple[tuple[str, int], ...], str] = field(default_factory=dict)

    def judge(self, asking: Asking, fault: Fault, phase: Phase) -> Verdict:
        """Of the query that was asked during a fault."""
        if not asking.is_over_within(0):
            return Verdict("nothing", f"no end within {GUARD_S:g} s")
        if asking.answer is not None:
            return self._judge_answer(asking.answer, fault, phase)
        assert asking.error is not None
        error = asking.error
        named = [name for name in fault.victims if name in str(error)]
        saw = f"error {error.code}, {'names ' + named[0] if named else 'names nobody'}"
        if error.code == "internal":
            return Verdict(saw, f"a defect: {error}")
        if fault.is_harmless:
            return Verdict(saw, f"it had to be answered: {error}")
        return Verdict(saw)

    def learn(self, asking: Asking) -> str:
        """Take an answer to which all gave their part as the right one; what is wrong, if not."""
        answer = asking.answer
        if answer is None:
            return "no end" if asking.error is None else f"{asking.error.code}: {asking.error}"
        left_out = {one.node_id for one in answer.participants if one.state not in _WHOLE}
        if lacking := left_out | (set(NODES) - {one.node_id for one in answer.participants}):
            return f"answered without {', '.join(sorted(lacking))}"
        known = self._answers.setdefault(_spans(answer), answer.answer)
        return "" if known == answer.answer else "other words than before"

    def _judge_answer(self, answer: QueryAnswer, fault: Fault, phase: Phase) -> Verdict:
        told = {one.node_id: one for one in answer.participants}
        silent = sorted(set(NODES) - told.keys())
        partial = {name: one for name, one in told.items() if one.state not in _WHOLE}
        words = [f"{one.state.value} {name}" for name, one in sorted(partial.items())]
        words += [f"silent about {name}" for name in silent]
        saw = f"answer, {', '.join(words) or 'whole'}"
        if unexplained := [name for name, one in partial.items() if not one.detail]:
            return Verdict(saw, f"no reason for {', '.join(unexplained)}")
        if silent and phase is not Phase.IDLE:
            return Verdict(saw, f"{', '.join(silent)} took part and is not reported")
        if words and fault.is_harmless:
            return Verdict(saw, "all had to take part")
        known = self._answers.get(_spans(answer), answer.answer)
        if not words and known != answer.answer:
            return Verdict(saw, "other words than without the fault")
        return Verdict(saw)


def _spans(answer: QueryAnswer) -> tuple[tuple[str, int], ...]:
    return tuple((one.node_id, one.text_tokens) for one in answer.participants)
