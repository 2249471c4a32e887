"""An evaluation: a task under variants of one model, in this process or on a network."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.cli.outfiles import STDOUT
from fedattn.cli.plans import check_gateway_plan
from fedattn.cli.scores import Scores
from fedattn.cli.terminal import tracked
from fedattn.client import Client
from fedattn.core.errors import InvalidRequestError
from fedattn.model.engine import open_engine
from fedattn.model.prepare import PreparedModel
from fedattn.research.evaluate.network import NetworkRuns
from fedattn.research.evaluate.results import ResultLog
from fedattn.research.evaluate.runs import InProcessRuns, PromptSegmentation, Variant
from fedattn.research.evaluate.scores import ScoresByName
from fedattn.research.tasks.task import Task

PUBLISHER = "publisher"
_MOST_TOGETHER = 20  # cases of a world whose references are held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is run, and everything its results depend on.

    Attributes:
        task: cases, and when an answer to one is right.
        model: as the user named it.
        prepared: the same, on disk.
        variants: centralised first.
        baseline: name of the variant that the others are set beside.
        prompts: how prompts are cut.
        system_prompt: public; None for the default.
        network: whether every node is a process of its own.
        seed: of the random draws.
    """

    task: Task
    model: str
    prepared: PreparedModel
    variants: list[Variant]
    baseline: str
    prompts: PromptSegmentation
    system_prompt: str | None
    network: bool
    seed: int

    def run(self, json_path: Path | None, console: Console) -> Scores:
        """Score what was not scored by an earlier, stopped run of the same evaluation.

        Args:
            json_path: where results will be written; scored cases are kept beside it.
            console: gets the progress.

        Raises:
            FedAttnError: the model, the cases or the network do not fit.
        """
        with ExitStack() as stack:
            kept = json_path
            if kept is None or kept == STDOUT:
                kept = Path(stack.enter_context(TemporaryDirectory())) / "x"
            log = ResultLog(kept.with_suffix(".cases.jsonl"), self._identity())
            left = self.task.cases[len(log.done) :]
            if left:
                if log.done:
                    console.print(f"{len(log.done)} cases were done before")
                runs = stack.enter_context(self._open_runs())
                scored = self._score_worlds(runs, len(log.done))
                for scores in tracked(scored, "cases", len(left), console):
                    log.add(scores)
        return Scores(
            task=self.task, variants=self.variants, baseline=self.baseline, cases=log.done
        )

    def _score_worlds(
        self, runs: InProcessRuns | NetworkRuns, first: int
    ) -> Iterator[ScoresByName]:
        """Scores from a case on; those of a world that lie side by side come together."""
        numbered = zip(self.task.worlds()[first:], self.task.cases[first:], strict=True)
        for _, world in groupby(numbered, key=itemgetter(0)):
            cases = [case for _, case in world]
            for start in range(0, len(cases), _MOST_TOGETHER):
                some = cases[start : start + _MOST_TOGETHER]
                yield from runs.run_world(self.task, some, self.variants)

    def _identity(self) -> dict[str, Any]:
        """Everything results depend on, as JSON."""
        how = self.prompts
        return {
            "model": self.prepared.fingerprint,
            "task": self.task.name,
            "cases": [asdict(case) for case in self.task.cases],
            "setups": [
                [variant.name, str(variant.plans.contributors), str(variant.plans.publisher),
                 *variant.compression.plain]
                for variant in self.variants
            ],
            "shape": [how.segmentation and how.segmentation.value, how.num_participants,
                      how.prefix.value, how.max_new_tokens, self.system_prompt, self.network],
            "seed": self.seed,
        }  # fmt: skip

    @contextmanager
    def _open_runs(self) -> Iterator[InProcessRuns | NetworkRuns]:
        if self.network:
            with self._network_runs() as runs:
                yield runs
            return
        engine = open_engine(self.prepared, self.system_prompt)
        yield InProcessRuns(engine.prefiller, engine.tokenizer, self.prompts)

    @contextmanager
    def _network_runs(self) -> Iterator[NetworkRuns]:
        """A network of as many contributors as the largest case has contexts."""
        for variant in self.variants:
            check_gateway_plan(variant.asked.plan)
            check_gateway_plan(variant.asked.publisher_plan or "")
        self._check_network_can_run_it()
        num_nodes = max(len(case.contexts) for case in self.task.cases)
        nodes = [f"contributor-{i + 1}" for i in range(num_nodes)]
        with TemporaryDirectory() as folder, local_network(plaintext=True) as network:
            files = {node: Path(folder) / f"{node}.txt" for node in nodes}
            policy = Path(folder) / "policy.toml"
            policy.write_text("lowest_block = 0\n", encoding="utf-8")  # plans are compared here
            self._start(network, files, f"--policy={policy}")
            with Client(network.gateway_url) as client:
                yield NetworkRuns(client.ask, files, self.prompts.max_new_tokens)

    def _check_network_can_run_it(self) -> None:
        has_responder = any(variant.responder is not None for variant in self.variants)
        if not self.task.is_chat or self.prompts.segmentation is not None or has_responder:
            raise InvalidRequestError(
                "--network runs whole contexts in chat prompts, a node each, and the publisher "
                "answers; leave out --segmentation and --responder, and choose the task retrieval"
            )

    def _start(self, network: LocalNetwork, files: dict[str, Path], *flags: str) -> None:
        """Start a contributor a file and a publisher; return when all have joined."""
        network.start_aggregator()
        if self.system_prompt:
            flags = (*flags, f"--system-prompt={self.system_prompt}")
        for node, file in files.items():
            file.write_text("", encoding="utf-8")
            plan = NodePlan(node_id=node, context=file, model=self.model)
            network.start_participant(plan, *flags)
        exact = (*flags, "--decode-weights=float32")  # equal to an evaluation in one process
        network.start_participant(NodePlan(node_id=PUBLISHER, model=self.model), *exact)
        network.start_gateway(PUBLISHER)
        for _ in network.wait_ready([*files, PUBLISHER]):
            pass
