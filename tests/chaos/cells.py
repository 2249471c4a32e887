"""One fault in one phase of a query, and all that is looked at afterwards."""

import time
from dataclasses import dataclass

from tests.chaos.asking import GUARD_S, Asking
from tests.chaos.faults import Fault, Phase
from tests.chaos.federation import Federation, Held, wait_for
from tests.chaos.links import CLEAR, Weather
from tests.chaos.verdicts import Judge, Verdict

SLOW = Weather(bytes_per_s=48_000)
"""Links on which an exchange of the tiny model takes a few seconds, so that it can be hit."""
BACK_S = 90.0
CALM_S = 30.0
_FILES, _THREADS, _MIB, _STATE_FILES = 16, 12, 128, 8
"""More than that above what a process held after its first query is a leak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What came of it; times in seconds.

    Attributes:
        place: what an aggregator did for the query when it was struck; empty for others.
        saw: what the client saw of the query that was asked meanwhile.
        seconds: from the fault to that.
        back_s: from the end of the fault, until the next query was answered whole.
        problems: what must not be.
    """

    fault: str
    phase: str
    place: str
    saw: str
    seconds: float
    back_s: float
    problems: tuple[str, ...]


class Tester:
    """Strikes one federation, again and again."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._judge = Judge(federation.words_for)
        self._held: dict[int, Held] = {}
        self._state_files = 0
        if problem := self._ask_calmly():
            raise AssertionError(f"it does not work before anything was done to it: {problem}")
        self._look_for_leaks()

    def strike(self, fault: Fault, phase: Phase) -> Cell:
        """Ask, strike at the phase, heal, look at everything."""
        federation = self._federation
        asking, place, struck = self._ask_until(fault, phase)
        asking.is_over_within(fault.lasts_s)
        fault.heal(federation)
        healed = time.monotonic()
        asking.is_over_within(GUARD_S)
        verdict = self._judge.judge(asking, fault)
        asked_s = max(0.0, asking.ended_at - struck)
        problem = self._recover()
        back_s = time.monotonic() - healed
        return Cell(
            fault=fault.name,
            phase=phase.value,
            place=place,
            saw=verdict.saw,
            seconds=asked_s,
            back_s=back_s,
            problems=tuple(self._problems(verdict, problem)),
        )

    def _problems(self, verdict: Verdict, next_query: str) -> list[str]:
        found = [verdict.wrong] if verdict.wrong else []
        if next_query:
            found.append(f"next query: {next_query}")
        found += [f"{name} ended by itself" for name in self._federation.dead()]
        return found + self._look_for_leaks()

    def _ask_until(self, fault: Fault, phase: Phase) -> tuple[Asking, str, float]:
        """A query that has been struck at its phase, where that hit an aggregator, and when."""
        federation = self._federation
        if phase is Phase.IDLE:
            place, struck = self._strike(fault)
            return Asking(federation.gateway_url), place, struck
        if phase is Phase.OPENING:
            held = "pharmacy"  # nobody's victim: its answer is what the opening waits for
            federation.set_weather(Weather(is_cut=True), [held])
            asking = Asking(federation.gateway_url)
            wait_for(lambda: federation.busy() or asking.is_over_within(0), GUARD_S)
            return asking, *self._strike(fault)
        if phase is Phase.EXCHANGE:
            federation.set_weather(SLOW)
        asking = Asking(federation.gateway_url)
        asking.reach(phase)
        return asking, *self._strike(fault)

    def _strike(self, fault: Fault) -> tuple[str, float]:
        """Strike now: what an aggregator that is the victim did for the query, and when it was."""
        victim = fault.victims[0] if fault.victims else ""
        is_one = victim in self._federation.aggregators
        place = self._federation.place_of(victim) if is_one else ""
        self._federation.set_weather(CLEAR)
        fault.strike(self._federation)
        return place, time.monotonic()

    def _recover(self) -> str:
        """Wait until the next query is answered whole; what is wrong, if it never is."""
        problem = "not all nodes joined again"

        def is_answered() -> bool:
            nonlocal problem
            if not self._federation.is_whole():
                return False
            problem = self._ask_calmly()
            return not problem

        return "" if wait_for(is_answered, BACK_S) else problem

    def _ask_calmly(self) -> str:
        asking = Asking(self._federation.gateway_url)
        asking.is_over_within(GUARD_S)
        return self._judge.learn(asking)

    def _look_for_leaks(self) -> list[str]:
        """What is still held by anybody, though nobody asks any more."""
        found: list[str] = []

        def is_calm() -> bool:
            found[:] = self._federation.busy() + self._more_than_before()
            return not found

        wait_for(is_calm, CALM_S)
        return found

    def _more_than_before(self) -> list[str]:
        federation, found = self._federation, []
        for name in federation.services:
            if name in federation.dead():
                continue
            held = federation.held(name)
            first = self._held.setdefault(federation.pid(name), held)
            for what, now, before, more in (
                ("open files", held.files, first.files, _FILES),
                ("threads", held.threads, first.threads, _THREADS),
                ("MiB", held.resident_mib, first.resident_mib, _MIB),
            ):
                if now > before + more:
                    found.append(f"{name}: {now} {what}, {before} before")
        num_files = federation.num_state_files()
        self._state_files = self._state_files or num_files
        if num_files > self._state_files + _STATE_FILES:
            found.append(f"{num_files} files of state, {self._state_files} before")
        return found
