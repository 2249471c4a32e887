"""Does a model of one's own answer over a network as one model over the joined texts would?

    python -m benchmarks.any_model MODEL [--plan all] [--others 0]

Two notes and a question go to a network over gRPC, to the same members in one process, and to the
one-model oracle. MODEL is what `fedattn model prepare` takes. Prints the answer of each, and the
largest difference in the logits of its first token. Other members with notes of no concern come
between the two, so that a sliding window has something to leave behind. Every note is one passage,
so that a node tokenizes it as a whole.
"""

import argparse
import asyncio
import logging
import tempfile
from functools import partial
from pathlib import Path

import structlog

from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import generate_tokens
from fedattn.model.engine import Engine, open_engine
from fedattn.model.fused import DECODE_FORMATS, FusedDecoder
from fedattn.research.oracle import oracle_greedy, oracle_logits
from tests.harness.runners import RUNNERS, prefill_in_process
from tests.harness.scenarios import NUM_NEW_TOKENS, Scenario

NOTES = (
    "Harbour log. The ship Aurora arrived this morning and lies at pier 4.",
    "Customs. The ship Aurora carries 300 boxes of tea.",
)
QUESTION = "What does the ship Aurora carry, and at which pier does it lie?"


def make_scenario(engine: Engine, plan: str, num_others: int) -> Scenario:
    """The notes and the question, with one plan for everybody."""
    first, last = NOTES
    return Scenario(
        name="any model",
        contexts=(first, *map(_note_of_no_concern, range(num_others)), last),
        question=QUESTION,
        plan=plan,
        publisher_plan=plan,
        num_layers=engine.model.shape.num_layers,
        tokenizer=engine.tokenizer,
    )


def _note_of_no_concern(number: int) -> str:
    watches = ", ".join(f"at {hour} wind {(number + hour) % 7} from the south" for hour in range(6))
    return f"Watch {number}: {watches}."


async def compare(engine: Engine, scenario: Scenario) -> None:
    """Ask each way and print what came."""
    layout, joined = scenario.layout(), scenario.joined()
    expected = oracle_logits(engine.model, layout, joined, [])[-1]
    greedy = oracle_greedy(engine.model, layout, joined, NUM_NEW_TOKENS)
    print(f"{len(joined)} tokens, plan {scenario.plan}")
    print(f"{'oracle':<16} {engine.tokenizer.decode(greedy)!r}")
    for name, run in RUNNERS.items():
        with tempfile.TemporaryDirectory() as folder:
            outcome = await run(scenario, engine.model, Path(folder))
        apart = float((outcome.logits - expected).abs().max())
        print(
            f"{name:<16} {engine.tokenizer.decode(outcome.generated)!r}, "
            f"logits at most {apart:.1e} from the oracle's"
        )


def decode(engine: Engine, scenario: Scenario) -> None:
    """The answer by the blocks that are written out for decoding, if they know this model's."""
    if engine.model.read_block is None:
        print("its blocks are not written out for decoding")
        return
    prefill = prefill_in_process(scenario, engine.model)[0]
    sampling = SamplingParams.most_likely(4 * NUM_NEW_TOKENS)
    for weights in DECODE_FORMATS:
        make = partial(FusedDecoder, engine.model, weights)
        tokens = list(generate_tokens(engine.model, prefill, sampling, make))
        print(f"{'fused, ' + weights:<16} {engine.tokenizer.decode(tokens)!r}")


def main() -> None:
    """Open the model and ask."""
    parser = argparse.ArgumentParser(description="network against oracle on a model of one's own")
    parser.add_argument("model", help="folder, .gguf file or hub id")
    parser.add_argument("--plan", default="all", help="sync plan of every participant")
    parser.add_argument("--cache", type=Path, default=None, help="where prepared models are kept")
    parser.add_argument("--others", type=int, default=0, help="members with other notes")
    wanted = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    engine = open_engine(wanted.model, cache_dir=wanted.cache, progress=print)
    scenario = make_scenario(engine, wanted.plan, wanted.others)
    asyncio.run(compare(engine, scenario))
    decode(engine, scenario)


if __name__ == "__main__":
    main()
