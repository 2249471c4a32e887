"""The same cases over a live network of processes on this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path

from fedattn.core.errors import InvalidRequestError
from fedattn.research.evaluate.runs import CaseScore, Variant
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.task import Task
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.query import CompressionBody, QueryBody, SamplingBody

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

    def run_case(self, task: Task, case: Case, variants: list[Variant]) -> Iterator[CaseScore]:
        """Scores of one case, in the order of the variants.

        Raises:
            InvalidRequestError: the case has more contexts than there are nodes.
        """
        if len(case.contexts) > len(self._files):
            raise InvalidRequestError(
                f"a case has {len(case.contexts)} contexts for {len(self._files)} contributors; "
                "start more, or leave the case out"
            )
        nodes = list(self._files)[: len(case.contexts)]
        for node, text in zip(nodes, case.contexts, strict=True):
            self._files[node].write_text(text, encoding="utf-8")
        for variant in variants:
            answer = self._ask(self._body(task, case, variant, nodes))
            yield CaseScore(
                text=answer.answer,
                match=task.is_right(answer.answer, case),
                nll=None,
                divergence=None,
                kv_bytes=answer.totals.kv_bytes,
            )

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
