"""What is done to a federation, and how it is undone."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from fedattn.core.node_id import AGGREGATOR, GATEWAY, NATS
from tests.chaos.federation import NODES, OTHER_TEXT, PUBLISHER, TEXTS, Federation
from tests.chaos.links import CLEAR, Weather

CONTRIBUTOR = "clinic"
_HOUR_S = 3600.0


class Phase(Enum):
    """Of the query that is asked meanwhile."""

    IDLE = "idle"
    OPENING = "opening"
    EXCHANGE = "exchange"
    DECODING = "decoding"


EVERY_PHASE = tuple(Phase)
Act = Callable[[Federation], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of one victim.

    Attributes:
        name: what is done to whom.
        victims: services that an honest error or report names.
        strike: do it.
        heal: undo it.
        phases: when it is worth doing.
        lasts_s: it is undone after so long, or as soon as the query has ended.
        is_harmless: whether the answer has to be whole all the same.
    """

    name: str
    victims: tuple[str, ...]
    strike: Act
    heal: Act
    phases: tuple[Phase, ...] = EVERY_PHASE
    lasts_s: float = 20.0
    is_harmless: bool = False


def faults_of(federation: Federation) -> list[Fault]:
    """Every fault that this federation can have.

    A service that is added to it is killed and frozen as any other.
    """
    aggregators, joined = federation.aggregators, bool(federation.uplinks)
    idle_nodes = {*NODES} - {CONTRIBUTOR, PUBLISHER}
    victims = [name for name in federation.services if name not in idle_nodes]
    faults = [make(name) for name in victims for make in (_kill, _freeze)]
    faults += [_cut(name) for name in (CONTRIBUTOR, PUBLISHER, GATEWAY)]
    faults += [_cut_all(aggregators), *_weathers(), _replace_text()]
    if joined:
        faults += [_cut_aggregator(aggregators[0]), *_cut_uplinks(aggregators)]
    faults += [_fill_disk(name) for name in (aggregators[0], CONTRIBUTOR, PUBLISHER, GATEWAY)]
    faults += [_step(CONTRIBUTOR, _HOUR_S), _step(CONTRIBUTOR, -_HOUR_S), _step(PUBLISHER, _HOUR_S)]
    return faults


def _kill(name: str) -> Fault:
    def heal(federation: Federation) -> None:
        federation.start(name)

    return Fault(name=f"kill {name}", victims=(name,), strike=lambda one: one.kill(name), heal=heal)


def _freeze(name: str) -> Fault:
    return Fault(
        name=f"freeze {name}",
        victims=(name,),
        strike=lambda one: one.signal(name, signal.SIGSTOP),
        heal=lambda one: one.signal(name, signal.SIGCONT),
    )


def _cut(name: str) -> Fault:
    return Fault(
        name=f"cut off {name}",
        victims=(name, AGGREGATOR),
        strike=lambda one: one.set_weather(Weather(is_cut=True), [name]),
        heal=lambda one: one.set_weather(CLEAR, [name]),
    )


def _cut_all(aggregators: Sequence[str]) -> Fault:
    return Fault(
        name="cut off every aggregator",
        victims=(AGGREGATOR, *aggregators),
        strike=lambda one: one.set_weather(Weather(is_cut=True)),
        heal=lambda one: one.set_weather(CLEAR),
    )


def _cut_aggregator(name: str) -> Fault:
    def strike(federation: Federation) -> None:
        federation.cut_off(name)
        federation.set_uplinks(Weather(is_cut=True), [name])

    def heal(federation: Federation) -> None:
        federation.cut_off()
        federation.set_uplinks(CLEAR, [name])

    return Fault(name=f"cut off {name}", victims=(name,), strike=strike, heal=heal)


def _cut_uplinks(aggregators: Sequence[str]) -> list[Fault]:
    """Between NATS and one aggregator, and between NATS and all."""
    whom = {aggregators[-1]: [aggregators[-1]], "every aggregator": list(aggregators)}
    return [
        Fault(
            name=f"cut off {label} from {NATS}",
            victims=(NATS, *names),
            strike=lambda one, names=names: one.set_uplinks(Weather(is_cut=True), names),  # type: ignore[misc]
            heal=lambda one: one.set_uplinks(CLEAR),
        )
        for label, names in whom.items()
    ]


def _weathers() -> list[Fault]:
    kinds = {
        "1 % loss": Weather(loss=0.01),
        "200 ms delay": Weather(delay_s=0.2),
        "5 Mbit/s": Weather(bytes_per_s=5e6 / 8),
        "all three": Weather(loss=0.01, delay_s=0.2, bytes_per_s=5e6 / 8),
    }
    return [
        Fault(
            name=f"links: {name}",
            victims=(),
            strike=lambda one, weather=weather: one.set_weather(weather),  # type: ignore[misc]
            heal=lambda one: one.set_weather(CLEAR),
            phases=(Phase.IDLE,),
            lasts_s=60.0,
            is_harmless=True,
        )
        for name, weather in kinds.items()
    ]


def _replace_text() -> Fault:
    return Fault(
        name=f"replace text of {CONTRIBUTOR}",
        victims=(CONTRIBUTOR,),
        strike=lambda one: one.replace_text(CONTRIBUTOR, OTHER_TEXT),
        heal=lambda one: one.replace_text(CONTRIBUTOR, TEXTS[CONTRIBUTOR]),
        phases=(Phase.OPENING, Phase.EXCHANGE, Phase.DECODING),
        is_harmless=True,
    )


def _fill_disk(name: str) -> Fault:
    return Fault(
        name=f"disk full at {name}",
        victims=(name,),
        strike=lambda one: one.fill_disk(name, is_full=True),
        heal=lambda one: one.fill_disk(name, is_full=False),
        phases=(Phase.IDLE, Phase.EXCHANGE),
        is_harmless=name not in NODES,
    )


def _step(name: str, seconds: float) -> Fault:
    return Fault(
        name=f"clock {seconds / _HOUR_S:+g} h at {name}",
        victims=(name,),
        strike=lambda one: one.step_clock(name, seconds),
        heal=lambda one: one.step_clock(name, 0.0),
        phases=(Phase.IDLE, Phase.EXCHANGE),
    )
