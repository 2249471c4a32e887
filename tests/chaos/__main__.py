"""Faults in random order against a federation of real processes: `python -m tests.chaos`.

    --seconds 1800   stop after so long
    --seed 0         order of the faults, and what links lose
    --aggregators 3  one federation through NATS; 1 for one alone
    --only TEXT      faults whose name has it, such as: kill, freeze clinic, links
    --json FILE      the same table for programs

Prints what the client saw of each fault in each phase of its query, after how many seconds, and
how long after the fault the next query was answered whole. Exit code 1 if anything hung, leaked,
was wrong, or was not told honestly.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain, repeat
from pathlib import Path
from random import Random

from tests.chaos.cells import Cell, Tester
from tests.chaos.faults import Fault, Phase, faults_of
from tests.chaos.federation import Federation
from tests.chaos.prepared import prepared_federation

_ROW = "{:42} {:9} {:>7}  {:>7}  {}"
HEAD = _ROW.format("fault", "phase", "seconds", "back s", "what the client saw")


def in_random_order(
    federation: Federation, seed: int, only: str = ""
) -> Iterator[tuple[Fault, Phase]]:
    """All faults in all their phases, round after round, each in an order of its own."""
    random = Random(seed)
    cells = [(one, phase) for one in faults_of(federation) for phase in one.phases]
    cells = [(fault, phase) for fault, phase in cells if only in fault.name]
    return chain.from_iterable(random.sample(one, len(one)) for one in repeat(cells))


def run(tester: Tester, cells: Iterable[tuple[Fault, Phase]], seconds: float) -> list[Cell]:
    """Strike until the time is over, and print each cell."""
    end = time.monotonic() + seconds
    done: list[Cell] = []
    print(HEAD)
    for fault, phase in cells:
        if time.monotonic() > end:
            break
        done.append(tester.strike(fault, phase))
        print(row_of(done[-1]), flush=True)
    return done


def row_of(cell: Cell) -> str:
    """A line of the table, and a line for each problem."""
    times = f"{cell.seconds:.1f}", f"{cell.back_s:.1f}"
    row = _ROW.format(cell.fault, cell.phase, *times, cell.saw)
    row += f" (it {cell.place})" if cell.place else ""
    return "\n".join([row, *(f"    WRONG: {problem}" for problem in cell.problems)])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--aggregators", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with prepared_federation(options.seed, options.aggregators) as federation:
        order = in_random_order(federation, options.seed, options.only)
        cells = run(Tester(federation), order, options.seconds)
    if options.json is not None:
        document = {
            "seed": options.seed,
            "aggregators": options.aggregators,
            "cells": [asdict(cell) for cell in cells],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    wrong = [cell for cell in cells if cell.problems]
    print(f"{len(cells)} faults, {len(wrong)} with something wrong, seed {options.seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
