"""Whether what a client saw is honest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedattn.core.report import Outcome
from fedattn.rest.answers import QueryAnswer
from tests.chaos.asking import GUARD_S, Asking
from tests.chaos.faults import Fault
from tests.chaos.federation import NODES


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

    Args:
        words_for: what messages may call a service.
    """

    _words_for: Callable[[str], Sequence[str]]
    _answers: dict[tuple[tuple[str, int], ...], str] = field(default_factory=dict)

    def judge(self, asking: Asking, fault: Fault) -> Verdict:
        """Of the query that was asked during a fault."""
        if not asking.is_over_within(0):
            return Verdict("nothing", f"no end within {GUARD_S:g} s")
        if asking.answer is not None:
            return self._judge_answer(asking.answer, fault)
        assert asking.error is not None
        error = asking.error
        named = [
            name
            for name in fault.victims
            if any(map(str(error).__contains__, self._words_for(name)))
        ]
        saw = f"error {error.code}, {'names ' + named[0] if named else 'names nobody'}"
        if error.code == "internal":
            return Verdict(saw, f"a defect: {error}")
        if fault.is_harmless:
            return Verdict(saw, f"it had to be answered: {error}")
        if not named:
            return Verdict(saw, f"it names nobody: {error}")
        return Verdict(saw)

    def learn(self, asking: Asking) -> str:
        """Take an answer to which all gave their part as the right one; what is wrong, if not."""
        answer = asking.answer
        if answer is None:
            return "no end" if asking.error is None else f"{asking.error.code}: {asking.error}"
        if lacking := set(NODES) - asking.taking_part():
            return f"answered without {', '.join(sorted(lacking))}"
        known = self._answers.setdefault(_spans(answer), answer.answer)
        return "" if known == answer.answer else "other words than before"

    def _judge_answer(self, answer: QueryAnswer, fault: Fault) -> Verdict:
        told = {one.node_id: one for one in answer.participants}
        silent = sorted(set(NODES) - told.keys())
        partial = {name: one for name, one in told.items() if one.state is not Outcome.COMPLETE}
        words = [f"{one.state.value} {name}" for name, one in sorted(partial.items())]
        words += [f"silent about {name}" for name in silent]
        saw = f"answer, {', '.join(words) or 'whole'}"
        if unexplained := [name for name, one in partial.items() if not one.detail]:
            return Verdict(saw, f"no reason for {', '.join(unexplained)}")
        if silent:
            return Verdict(saw, f"{', '.join(silent)} was there a moment ago and is not reported")
        if words and fault.is_harmless:
            return Verdict(saw, "all had to take part")
        known = self._answers.get(_spans(answer), answer.answer)
        if not words and known != answer.answer:
            return Verdict(saw, "other words than without the fault")
        return Verdict(saw)


def _spans(answer: QueryAnswer) -> tuple[tuple[str, int], ...]:
    return tuple((one.node_id, one.text_tokens) for one in answer.participants)
