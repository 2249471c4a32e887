"""Tasks: cases, how their prompts are made, and when an answer is right."""

from collections.abc import Callable
from dataclasses import dataclass

from fedattn.research.tasks.cases import Case, is_right


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What `fedattn eval` runs.

    Attributes:
        name: for people.
        cases: units (contexts or exemplars), question, answer.
        is_chat: whether prompts take the model's chat template; else plain text.
        max_new_tokens: enough for an answer.
        stop: an answer ends before this text; empty for none.
        grade: (text, case) -> whether the text is right.
        is_few_shot: whether contexts are exemplars, which cases may share by the way they are made:
            each case then is a world of its own.
    """

    name: str
    cases: tuple[Case, ...]
    is_chat: bool = True
    max_new_tokens: int = 16
    stop: str = ""
    grade: Callable[[str, Case], bool] = is_right
    is_few_shot: bool = False

    def is_right(self, text: str, case: Case) -> bool:
        """Whether an answer is right, what follows its stop text being ignored."""
        return self.grade(text.split(self.stop, maxsplit=1)[0] if self.stop else text, case)

    def worlds(self) -> list[int]:
        """Of which world each case is, from 0: cases with the same contexts are of one."""
        if self.is_few_shot:
            return list(range(len(self.cases)))
        found: dict[tuple[str, ...], int] = {}
        return [found.setdefault(case.contexts, len(found)) for case in self.cases]
