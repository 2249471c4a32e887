"""How long after the death of an aggregator the next query works: `python -m tests.chaos.failover`.

    --repeats 12     deaths, each of another aggregator in turn
    --json FILE      the same for programs

A federation of three aggregators, with all settings at their defaults. One is killed; from then on
a client asks, and asks again as soon as it has an answer or an error. Told are the seconds that a
query took right before, from the death to the end of the first query that was answered, and to the
end of the first to which every node gave its part.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.chaos.asking import GUARD_S, Asking
from tests.chaos.federation import NODES, Federation, wait_for
from tests.chaos.prepared import prepared_federation

_ROW = "{:14} {:>7} {:>10} {:>8}  {}"
_WITHIN_S = 120.0
_SETTLED_S = 11.0
"""A node that lost its aggregator sooner than that counts it as a failure in a row, and pauses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """One death and what came after.

    Attributes:
        place: what the aggregator did for queries.
        calm_s: that a query took right before.
        answered_s: from the death to the end of the first that was answered.
        whole_s: the same, of the first that was answered by all nodes.
        errors: codes of what failed before that.
    """

    aggregator: str
    place: str
    calm_s: float
    answered_s: float
    whole_s: float
    errors: tuple[str, ...]


def die(federation: Federation, name: str) -> Death:
    """Kill an aggregator, ask until everybody takes part again, start it anew.

    Raises:
        TimeoutError: that did not come to be.
    """
    time.sleep(_SETTLED_S)
    begun = time.monotonic()
    Asking(federation.gateway_url).is_over_within(GUARD_S)
    calm_s = time.monotonic() - begun
    place = federation.place_of(name)
    federation.kill(name)
    killed = time.monotonic()
    answered_s: float | None = None
    errors: list[str] = []
    while time.monotonic() - killed < _WITHIN_S:
        asking = Asking(federation.gateway_url)
        asking.is_over_within(GUARD_S)
        after_s = time.monotonic() - killed
        if asking.answer is None:
            errors.append("none" if asking.error is None else asking.error.code)
            continue
        answered_s = after_s if answered_s is None else answered_s
        if asking.taking_part() == set(NODES):
            federation.start(name)
            wait_for(federation.is_whole, _WITHIN_S)
            return Death(
                aggregator=name,
                place=place,
                calm_s=calm_s,
                answered_s=answered_s,
                whole_s=after_s,
                errors=tuple(errors),
            )
    raise TimeoutError(f"no whole answer within {_WITHIN_S:g} s of the death of {name}")


def deaths(federation: Federation, repeats: int) -> Iterator[Death]:
    """So many, each of another aggregator in turn."""
    for number in range(repeats):
        yield die(federation, federation.aggregators[number % len(federation.aggregators)])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    done: list[Death] = []
    with prepared_federation(0, 3, has_defaults=True) as federation:
        print(_ROW.format("killed", "calm s", "answered s", "whole s", "errors before"))
        for death in deaths(federation, options.repeats):
            done.append(death)
            times = f"{death.calm_s:.1f}", f"{death.answered_s:.1f}", f"{death.whole_s:.1f}"
            print(_ROW.format(death.aggregator, *times, " ".join(death.errors)), flush=True)
    for what, all_s in (
        ("a query before", [death.calm_s for death in done]),
        ("answered", [death.answered_s for death in done]),
        ("whole", [death.whole_s for death in done]),
    ):
        print(f"{what}: median {median(all_s):.1f} s, longest {max(all_s):.1f} s")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(death) for death in done], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
