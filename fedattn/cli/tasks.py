"""The task that `fedattn eval` is told to run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.cases import Case, read_cases
from fedattn.research.tasks.gsm8k import gsm8k_task
from fedattn.research.tasks.labels import labels_task
from fedattn.research.tasks.retrieval import generate_cases
from fedattn.research.tasks.task import Task
from fedattn.research.tasks.worlds import CountTokens, WorldShape, generate_worlds

TASKS = ("retrieval", "labels", "gsm8k", "notes")
RETRIEVAL = "retrieval"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What a user says of a task.

    Attributes:
        name: one of TASKS but notes.
        cases: a file of them; None to generate or download.
        num_cases: at most; of each length.
        num_contexts: of a generated case.
        num_shots: exemplars.
        seed: of all draws.
        lengths: tokens a context of generated cases; none for short ones.
        num_questions: about the same contexts, of those with a length.
    """

    name: str
    cases: Path | None
    num_cases: int
    num_contexts: int
    num_shots: int
    seed: int
    lengths: tuple[int, ...]
    num_questions: int

    def __post_init__(self) -> None:
        if self.lengths and (self.name != RETRIEVAL or self.cases is not None):
            raise InvalidRequestError(
                "--length is of generated retrieval cases; leave it out, or leave out --cases and "
                f"choose the task {RETRIEVAL}"
            )


def read_task(options: TaskOptions, open_counter: Callable[[], CountTokens]) -> Task:
    """The task with its cases.

    Args:
        options: which.
        open_counter: returns what counts tokens; called if a length asks for it.

    Raises:
        InvalidRequestError: it is unknown, or its cases cannot be read or made.
    """
    match options.name:
        case "retrieval":
            return Task(name=RETRIEVAL, cases=tuple(_retrieval_cases(options, open_counter)))
        case "labels":
            return labels_task(
                options.num_cases, seed=options.seed, num_exemplars=options.num_shots
            )
        case "gsm8k":
            return gsm8k_task(options.cases, options.num_cases, num_shots=options.num_shots)
        case unknown:
            raise InvalidRequestError(f"unknown task {unknown!r}; use one of {', '.join(TASKS)}")


def _retrieval_cases(options: TaskOptions, open_counter: Callable[[], CountTokens]) -> list[Case]:
    if options.cases is not None:
        return read_cases(options.cases)[: options.num_cases]
    if not options.lengths:
        return generate_cases(
            options.num_cases, seed=options.seed, num_contexts=options.num_contexts
        )
    count_tokens = open_counter()
    cases: list[Case] = []
    for length in sorted(set(options.lengths)):
        shape = WorldShape(
            length=length,
            num_contexts=options.num_contexts,
            num_questions=options.num_questions,
        )
        cases += generate_worlds(options.num_cases, shape, count_tokens, seed=options.seed)
    return cases
