"""The same cases over a live network of processes on this machine."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fedattn.core.errors import InvalidRequestError
from fedattn.research.evaluate.runs import Variant
from fedattn.research.evaluate.scores import CaseScore, ScoresByName
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.task import Task
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.fields import CompressionBody, SamplingBody
from fedattn.rest.query import QueryBody

Ask = Callable[[QueryBody], QueryAnswer]
"""Sends a query and returns its answer."""


class NetworkRuns:
    """Runs a task through a gateway. Contributor i's context is a file that is rewritten.

    A network says what it answered and what travelled; likelihoods stay on the nodes.

    Args:
        ask: sends a query.
        context_files: one a contributor, by its node id, in token order.
        max_new_tokens: most tokens to decode; None for the task's own.
    """

    def __init__(
        self, ask: Ask, context_files: dict[str, Path], max_new_tokens: int | None
    ) -> None:
        self._ask, self._files = ask, context_files
        self._max_new_tokens = max_new_tokens

    def run_world(
        self, task: Task, cases: Sequence[Case], variants: list[Variant]
    ) -> list[ScoresByName]:
        """Scores of cases side by side, one after the other.

        Raises:
            InvalidRequestError: a case has more contexts than there are nodes.
        """
        return [self._run_case(task, case, variants) for case in cases]

    def _run_case(self, task: Task, case: Case, variants: list[Variant]) -> ScoresByName:
        nodes = self._hand_out(case)
        scores = {}
        for variant in variants:
            answer = self._ask(self._body(task, case, variant, nodes))
            scores[variant.name] = CaseScore(
                text=answer.answer,
                match=task.is_right(answer.answer, case),
                nll=None,
                divergence=None,
                kv_bytes=answer.totals.kv_bytes,
            )
        return scores

    def _hand_out(self, case: Case) -> list[str]:
        """Give every context to a node; the nodes, in token order."""
        if len(case.contexts) > len(self._files):
            raise InvalidRequestError(
                f"a case has {len(case.contexts)} contexts for {len(self._files)} contributors; "
                "start more, or leave the case out"
            )
        nodes = list(self._files)[: len(case.contexts)]
        for node, text in zip(nodes, case.contexts, strict=True):
            self._files[node].write_text(text, encoding="utf-8")
        return nodes

    def _body(self, task: Task, case: Case, variant: Variant, nodes: list[str]) -> QueryBody:
        most = self._max_new_tokens or task.max_new_tokens
        return QueryBody(
            question=case.question,
            contributors=nodes,
            plan=variant.asked.plan,
            publisher_plan=variant.asked.publisher_plan,
            compression=CompressionBody.of(variant.asked.wish),
            sampling=SamplingBody(max_new_tokens=most),
        )
