"""When a node is hot or short of memory it gives less instead of dying."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from fedattn.core.errors import NodeBusyError
from fedattn.core.report import Pressure
from services.participant.machine import Readings, read_sensors

log = structlog.get_logger(__name__)

_RELIEF_C = 3.0
_RELIEF_MEMORY = 0.02
_severity = tuple(Pressure).index


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureLimits:
    """From where on pressure is high or critical.

    Attributes:
        high_c, critical_c: temperature, degrees Celsius; 0 for never.
        high_memory, critical_memory: share of memory that is left; 0 for never.
        keep_ratio: most of its rows that a node sends under high pressure.
    """

    high_c: float = 0.0
    critical_c: float = 0.0
    high_memory: float = 0.0
    critical_memory: float = 0.0
    keep_ratio: float = 0.5

    def level(self, readings: Readings) -> Pressure:
        """What these readings mean, whatever they were before."""
        heat = readings.temperature_c or 0.0
        if 0 < self.critical_c <= heat or readings.memory_free < self.critical_memory:
            return Pressure.CRITICAL
        if 0 < self.high_c <= heat or readings.memory_free < self.high_memory:
            return Pressure.HIGH
        return Pressure.NONE


class PressureGauge:
    """Follows the readings; falls only when they are better by a margin, so it does not flutter."""

    def __init__(self, limits: PressureLimits, read: Callable[[], Readings] = read_sensors) -> None:
        self._limits = limits
        self._read = read
        self.readings = read()
        self.level = limits.level(self.readings)

    def update(self) -> Pressure:
        """Read again."""
        self.readings = read = self._read()
        heat = read.temperature_c
        worse = Readings(
            memory_free=read.memory_free - _RELIEF_MEMORY,
            temperature_c=None if heat is None else heat + _RELIEF_C,
        )
        falling = min(self.level, self._limits.level(worse), key=_severity)
        level = max(self._limits.level(read), falling, key=_severity)
        if level is not self.level:
            log.warning("pressure", level=level, **self.describe())
        self.level = level
        return level

    def admit(self) -> None:
        """Read again, and raise if no new session fits now.

        Raises:
            NodeBusyError: names temperature and memory.
        """
        if self.update() is Pressure.CRITICAL:
            said = ", ".join(f"{name} {value}" for name, value in self.describe().items())
            raise NodeBusyError(f"the node is under critical pressure ({said}); try again later")

    @property
    def max_keep_ratio(self) -> float:
        """Most of its rows that the node sends now."""
        return 1.0 if self.level is Pressure.NONE else self._limits.keep_ratio

    def threads(self, wished: int) -> int:
        """Threads to compute on now."""
        return wished if self.level is Pressure.NONE else max(1, wished // 2)

    def describe(self) -> dict[str, str]:
        """The readings for people."""
        heat = self.readings.temperature_c
        words = {"memory_free": f"{self.readings.memory_free:.0%}"}
        return words if heat is None else words | {"temperature": f"{heat:.0f} C"}
