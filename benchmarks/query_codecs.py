"""What rounding of queries, and of what is made of them, costs where rows stay with their owners.

    python -m benchmarks.query_codecs [--cases 12] [--json FILE]

Three contributors of 200 tokens that are asked in this process, by the plan of the profile. KL from
queries in float32 along the answer of those, nats a token; bytes of a token's queries and part.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from fedattn.cli.plans import choose
from fedattn.core.asked import QUERY_CODEC_NAMES, query_codec_by_name
from fedattn.core.plans import NOWHERE, RolePlans
from fedattn.model.engine import open_engine
from fedattn.research.simulate import SimulationSettings, Simulator
from fedattn.research.tasks.worlds import WorldShape, generate_worlds

SEED = 3_000_061
EXACT, *ROUNDED = QUERY_CODEC_NAMES


def measure(num_cases: int) -> list[dict[str, Any]]:
    """A row a codec."""
    engine = open_engine("default")
    model, tokenizer = engine.model, engine.tokenizer
    chosen = choose("auto", None, model.shape.num_layers, model.fingerprint)
    simulator = Simulator(engine.prefiller, tokenizer)
    shape = WorldShape(length=200, num_questions=1)
    cases = generate_worlds(num_cases, shape, lambda text: len(tokenizer.plain(text)), seed=SEED)
    divergences: dict[str, list[float]] = {name: [] for name in ROUNDED}
    for case in cases:
        tokens = simulator.cut(case)

        def settings(codec: str) -> SimulationSettings:
            return SimulationSettings(
                plans=RolePlans(contributors=NOWHERE, publisher=NOWHERE, asked=chosen.plans.asked),
                compression=chosen.compression,
                independent=True,
                asked=(0, 1, 2),
                query_codec=codec,
                max_new_tokens=16,
            )

        exact = simulator.run_tokens(tokens, settings(EXACT), bool, as_reference=True)
        for name in ROUNDED if exact.reference else ():
            run = simulator.run_tokens(tokens, settings(name), bool, exact.reference)
            assert run.divergence is not None
            divergences[name].append(run.divergence)
    heads, size = model.sizes.num_query_heads, model.shape.head_dim
    return [
        {
            "codec": name,
            "bytes": 2 * query_codec_by_name(name).vectors_size(heads, size) + 4 * heads,
            "cases": len(divergences.get(name, [])),
            "kl": statistics.mean(divergences[name]) if name in divergences else 0.0,
            "largest_kl": max(divergences[name]) if name in divergences else 0.0,
        }
        for name in QUERY_CODEC_NAMES
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.cases)
    for row in rows:
        print(
            f"{row['codec']:5} {row['bytes']:5} bytes  KL {row['kl']:.5f}, at most "
            f"{row['largest_kl']:.5f} ({row['cases']} cases)"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"query_codecs": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
