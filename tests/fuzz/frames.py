"""Fuzz the frame decoder and the chunk path: `python -m tests.fuzz.frames --examples 200000`.

Every example is a valid frame, damaged, sealed again and read. It must come out as finite rows of
the agreed shape, or be refused by an error that names its sender, in bounded memory.
"""

import argparse
import sys
import tracemalloc
from collections import Counter
from random import Random

from tests.fuzz.checks import Outcome, ViolationError, check_chunks, check_decoding
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import Target, all_targets


def run(num_examples: int, seed: int) -> bool:
    """Try that many examples, print what came of them; whether all was well."""
    random = Random(seed)
    tried: Counter[tuple[str, Outcome]] = Counter()
    tracemalloc.start()
    for example in range(num_examples):
        target = random.choice(all_targets())
        names, frame = mutate(target, random)
        chunk_seed = random.getrandbits(32)
        try:
            outcome = check_decoding(target, frame)
            check_chunks(target, frame, Random(chunk_seed))
        except ViolationError as violation:
            print(f"violation in example {example}, {' + '.join(names)}: {violation}")
            print(f"again: python -m tests.fuzz.frames --target '{target.name}'", end=" ")
            print(f"--chunk-seed {chunk_seed} --frame {frame.hex()}")
            return False
        tried.update((name, outcome) for name in names)
    print(f"{num_examples} frames of {len(all_targets())} kinds, seed {seed}: no violation")
    for name in sorted({name for name, _ in tried}):
        rows, refused = tried[name, Outcome.ROWS], tried[name, Outcome.REFUSED]
        print(f"  {name:16} {rows:8} read as rows {refused:8} refused")
    return True


def replay(target: Target, frame: bytes, chunk_seed: int) -> bool:
    """Try one frame again; whether all was well."""
    try:
        print(f"decoding: {check_decoding(target, frame).value}")
        print(f"chunks: {check_chunks(target, frame, Random(chunk_seed)).value}")
    except ViolationError as violation:
        print(f"violation: {violation}")
        return False
    return True


def main() -> int:
    """Exit code 1 on a violation."""
    targets = {target.name: target for target in all_targets()}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=targets, help="with --frame: whose rules apply")
    parser.add_argument("--frame", type=bytes.fromhex, help="one frame to try again, hex")
    parser.add_argument("--chunk-seed", type=int, default=0)
    options = parser.parse_args()
    if options.frame is not None:
        if options.target is None:
            parser.error("--frame needs --target")
        well = replay(targets[options.target], options.frame, options.chunk_seed)
    else:
        well = run(options.examples, options.seed)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
