"""Faults against a federation of processes: the short form of `make chaos`."""

from itertools import islice
from pathlib import Path

from tests.chaos.__main__ import in_random_order
from tests.chaos.cells import Tester
from tests.chaos.faults import Fault
from tests.chaos.federation import running_federation
from tests.harness.nats import BINARY

SEED = 30
NUM_FAULTS = 9
NUM_AGGREGATORS = 2 if BINARY is not None else 1


def is_short(fault: Fault) -> bool:
    """Whether it shows at once: a frozen part, or one cut off, is found after many seconds."""
    return not fault.name.startswith(("freeze", "cut off"))


def test_faults_are_told_honestly_and_leave_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    with running_federation(tiny_folder, tmp_path, SEED, NUM_AGGREGATORS) as federation:
        tester = Tester(federation)
        order = in_random_order(federation, SEED)
        chosen = islice((cell for cell in order if is_short(cell[0])), NUM_FAULTS)
        problems = {
            f"{cell.fault} at {cell.phase}, client saw: {cell.saw}": cell.problems
            for cell in (tester.strike(*one) for one in chosen)
            if cell.problems
        }
    assert problems == {}
