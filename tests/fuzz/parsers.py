"""Fuzz all that reads what strangers wrote: `python -m tests.fuzz.parsers --examples 2000`.

Every example is a valid input of one parser, damaged. It must be read, or be refused by an error of
ours, in bounded memory and time. Frames have their own run, `python -m tests.fuzz.frames`.
"""

import argparse
import faulthandler
import sys
from collections.abc import Iterable
from functools import cache
from random import Random

from tests.fuzz.checks import ViolationError
from tests.fuzz.file_parsers import file_parsers
from tests.fuzz.parser import Parser
from tests.fuzz.text_parsers import text_parsers
from tests.fuzz.wire_parsers import wire_parsers

_HANGS_AFTER_S = 120


@cache
def all_parsers() -> dict[str, Parser]:
    """By name, each once."""
    found = (*wire_parsers(), *text_parsers(), *file_parsers())
    parsers = {parser.name: parser for parser in found}
    assert len(parsers) == len(found), "two parsers of one name"
    return parsers


def run(parsers: Iterable[Parser], num_examples: int, seed: int) -> bool:
    """Try that many examples on each, print what came of them; whether all was well."""
    is_well = True
    for parser in parsers:
        random, num_read = Random(seed), 0
        for example in range(num_examples):
            data = parser.example(random)
            faulthandler.dump_traceback_later(_HANGS_AFTER_S, exit=True, file=2)
            try:
                num_read += parser.check(data)
            except ViolationError as violation:
                print(f"violation in example {example} of {parser.name}: {violation}")
                print(f"again: python -m tests.fuzz.parsers --parser '{parser.name}'", end=" ")
                print(f"--input {data.hex()}")
                is_well = False
                break
        print(f"  {parser.name:20} {num_examples} examples, {num_read} read, others refused")
    faulthandler.cancel_dump_traceback_later()
    return is_well


def main() -> int:
    """Exit code 1 on a violation, and on a hang, whose stack is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000, help="of each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parser", choices=all_parsers(), help="this one alone")
    parser.add_argument("--input", type=bytes.fromhex, help="one input to try again, hex")
    options = parser.parse_args()
    chosen = [all_parsers()[options.parser]] if options.parser else all_parsers().values()
    if options.input is None:
        return 0 if run(chosen, options.examples, options.seed) else 1
    for one in chosen:
        print(f"{one.name}: {'read' if one.check(options.input) else 'refused'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
