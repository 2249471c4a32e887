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
    """

    name: str
    cases: tuple[Case, ...]
    is_chat: bool = True
    max_new_tokens: int = 16
    stop: str = ""
    grade: Callable[[str, Case], bool] = is_right

    def is_right(self, text: str, case: Case) -> bool:
        """Whether an answer is right, what follows its stop text being ignored."""
        return self.grade(text.split(self.stop, maxsplit=1)[0] if self.stop else text, case)
