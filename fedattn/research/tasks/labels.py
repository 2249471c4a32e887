"""Generated few-shot tasks: made-up labels for everyday words, learnt from exemplars alone."""

from random import Random

from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.task import Task

_GROUPS = {
    "animal": "dog cat horse cow sheep lion tiger rabbit wolf goat",
    "fruit": "apple pear cherry grape lemon plum peach melon mango fig",
    "tool": "hammer saw drill wrench chisel pliers axe shovel rake file",
    "colour": "red blue green yellow black white purple orange pink grey",
    "city": "Paris London Berlin Madrid Rome Vienna Tokyo Cairo Oslo Lima",
    "body": "hand foot nose ear knee elbow finger chin neck shoulder",
}
MAX_EXEMPLARS = 18  # of two groups of ten words, one of each is left to ask
_LABELS = ("alpha", "river", "stone", "cloud", "north", "seven", "paper", "metal")


def labels_task(count: int, *, seed: int = 0, num_exemplars: int = 8) -> Task:
    """`count` cases: exemplars "horse -> stone" of two groups, then a new word of one of them.

    Raises:
        InvalidRequestError: there are not so many words.
    """
    if not 1 <= num_exemplars <= MAX_EXEMPLARS:
        raise InvalidRequestError(f"shots: expected 1 to {MAX_EXEMPLARS}, got {num_exemplars}")
    rng = Random(seed)  # noqa: S311  (no secret)
    return Task(
        name=f"labels, {num_exemplars} exemplars",
        cases=tuple(_generate(rng, num_exemplars) for _ in range(count)),
        is_chat=False,
        max_new_tokens=3,
        stop="\n",
        grade=_is_first_word,
        is_few_shot=True,
    )


def _generate(rng: Random, num_exemplars: int) -> Case:
    groups = rng.sample(sorted(_GROUPS), 2)
    labels = dict(zip(groups, rng.sample(_LABELS, 2), strict=True))
    words = {group: rng.sample(_GROUPS[group].split(), 10) for group in groups}
    order = [groups[i % 2] for i in range(num_exemplars)]
    rng.shuffle(order)
    exemplars = [f"{words[group].pop()} -> {labels[group]}" for group in order]
    asked = rng.choice(groups)
    return Case(
        contexts=tuple(exemplars),
        question=f"{words[asked].pop()} ->",
        answer=f" {labels[asked]}",
        kind="labels",
    )


def _is_first_word(text: str, case: Case) -> bool:
    return text.strip().lower().startswith(case.answer.strip().lower())
