"""Asking for the text outright: the publisher attends to the rows and repeats what it read."""

import time
from dataclasses import dataclass

from fedattn.core.plans import shared_plan
from fedattn.model.prefill import Prefiller
from fedattn.model.prompt import PromptTokenizer
from fedattn.research.leak.received import Sending
from fedattn.research.simulate import CaseTokens, SimulationSettings, Simulator

QUESTION = "Repeat the text word for word."
_ROOM = 8
"""Tokens an answer may be longer than the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """What the model answered.

    Attributes:
        text: the answer.
        num_tokens: tokens of the private text.
        num_found: of these, how many the answer has in the same order (longest common
            subsequence of token ids).
        num_found_alone: as many without any row: what the question itself, and chance, give.
        seconds: wall time.
    """

    text: str
    num_tokens: int
    num_found: int
    num_found_alone: int
    seconds: float


def repeat(
    prefiller: Prefiller, tokenizer: PromptTokenizer, token_ids: list[int], sending: Sending
) -> Repetition:
    """Ask for one private text, greedily, with its rows and without any.

    Args:
        prefiller: of the model.
        tokenizer: of the model.
        token_ids: of the private text.
        sending: how its rows travel.

    Raises:
        ContextTooLongError: text, question and answer do not fit the model's window.
    """
    begun = time.monotonic()
    simulator = Simulator(prefiller, tokenizer, sending.make_exchange)
    tokens = CaseTokens(
        prefix=tokenizer.prefix(),
        contexts=[token_ids],
        question=tokenizer.question(QUESTION),
        answer=token_ids,
    )
    results = [
        simulator.run_tokens(
            tokens,
            SimulationSettings(
                plans=plans,
                compression=sending.compression,
                scorer=sending.scorer,
                max_new_tokens=len(token_ids) + _ROOM,
            ),
            lambda _: False,
        )
        for plans in (sending.plans, shared_plan(()))
    ]
    found, alone = (common_length(token_ids, result.trace.generated) for result in results)
    return Repetition(
        text=results[0].text,
        num_tokens=len(token_ids),
        num_found=found,
        num_found_alone=alone,
        seconds=time.monotonic() - begun,
    )


def common_length(first: list[int], second: list[int]) -> int:
    """Length of the longest common subsequence. Example: 1 2 3 4 and 2 9 4 share 2 4, so 2."""
    lengths = [0] * (len(second) + 1)
    for one in first:
        before = lengths.copy()
        for at, other in enumerate(second):
            lengths[at + 1] = before[at] + 1 if one == other else max(before[at + 1], lengths[at])
    return lengths[-1]
