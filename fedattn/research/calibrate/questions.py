"""Questions about one world: their answers by all rows, and how far others lead away from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedattn.model.engine import Engine
from fedattn.research.calibrate.forest import (
    GIVEN,
    LIKELY,
    QUESTION,
    Forest,
    Leaves,
    Past,
    branch_of,
)
from fedattn.research.tasks.cases import Case

_ANSWER_TOKENS = 12
"""Of the most likely answer, an end token included; the given ones are short."""

LogProbs = tuple[torch.Tensor, torch.Tensor]
"""[G, V] before each token of the given answer, and [A, V] of the most likely one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """One question: its tokens, those of its given and of its most likely answer."""

    tokens: list[int]
    given: list[int]
    likely: list[int]

    def nll(self, found: LogProbs) -> float:
        """Of the given answer, nats a token."""
        return -float(found[0][range(len(self.given)), self.given].mean())


class Questions:
    """Questions of one world, with what all its rows uncompressed make of them.

    Args:
        engine: of the model.
        cases: the questions.
        start: position of their first tokens.
        whole: all rows.
    """

    def __init__(self, engine: Engine, cases: Sequence[Case], start: int, whole: Past) -> None:
        self._model, self._start = engine.model, start
        questions = [engine.tokenizer.question(case.question) for case in cases]
        given = [engine.tokenizer.plain(case.answer) for case in cases]
        likely = self._decode(questions, whole)
        self._asked = [_Asked(*each) for each in zip(questions, given, likely, strict=True)]
        self._expected = list(self._log_probs(whole))

    def compare(self, past: Past) -> list[tuple[float, float]]:
        """Of other rows, for each question.

        Returns:
            KL from all rows along their most likely answer, and the change of the given answer's
            negative log-likelihood; nats a token.
        """
        compared = []
        each = zip(self._asked, self._expected, self._log_probs(past), strict=True)
        for asked, expected, found in each:
            certain = expected[1]
            divergence = float((certain.exp() * (certain - found[1])).sum(dim=-1).mean())
            compared.append((divergence, asked.nll(found) - asked.nll(expected)))
        return compared

    def answers(self, past: Past) -> list[list[int]]:
        """The most likely answers by other rows, token ids."""
        return self._decode([one.tokens for one in self._asked], past)

    @property
    def nlls(self) -> list[float]:
        """Of the given answers by all rows, nats a token."""
        each = zip(self._asked, self._expected, strict=True)
        return [asked.nll(expected) for asked, expected in each]

    @torch.inference_mode()
    def _decode(self, questions: list[list[int]], past: Past) -> list[list[int]]:
        """The most likely answers, a token of each in every step."""
        forest, ends = Forest(self._model, past), self._model.end_token_ids
        hidden = forest.run(
            Leaves.of(
                [(branch_of(at, QUESTION), one, self._start) for at, one in enumerate(questions)]
            )
        )
        lasts = (np.cumsum([len(one) for one in questions]) - 1).tolist()
        answers = [[token] for token in self._most_likely(hidden[lasts])]
        for _ in range(_ANSWER_TOKENS - 1):
            running = [at for at, answer in enumerate(answers) if answer[-1] not in ends]
            if not running:
                break
            steps = []
            for at in running:
                position = self._start + len(questions[at]) + len(answers[at]) - 1
                steps.append((branch_of(at, LIKELY), answers[at][-1:], position))
            found = self._most_likely(forest.run(Leaves.of(steps)))
            for at, token in zip(running, found, strict=True):
                answers[at].append(token)
        return answers

    def _most_likely(self, hidden: torch.Tensor) -> list[int]:
        tokens: list[int] = self._model.head(hidden).argmax(dim=-1).tolist()
        return tokens

    @torch.inference_mode()
    def _log_probs(self, past: Past) -> Iterator[LogProbs]:
        """Of both answers of each question, which run together."""
        runs = []
        for at, one in enumerate(self._asked):
            after = self._start + len(one.tokens)
            runs.append((branch_of(at, QUESTION), one.tokens, self._start))
            runs.append((branch_of(at, GIVEN), one.given[:-1], after))
            runs.append((branch_of(at, LIKELY), one.likely[:-1], after))
        hidden = Forest(self._model, past).run(Leaves.of(runs))
        parts = iter(torch.split(hidden, [len(run) for _, run, _ in runs]))
        for question, given, likely in zip(parts, parts, parts, strict=True):
            yield self._after(question, given), self._after(question, likely)

    def _after(self, question: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """Log-probabilities before each token of an answer."""
        hidden = torch.cat([question[-1:], answer])
        return torch.log_softmax(self._model.head(hidden).float(), dim=-1)
