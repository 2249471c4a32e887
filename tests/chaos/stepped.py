"""`python -m tests.chaos.stepped FILE python -m MODULE ...`: a service whose clock can be stepped.

FILE holds seconds, as one little-endian double, by which its wall clock is wrong. The monotonic
clock goes on as it should, as it does where NTP steps a clock. gRPC's Python takes deadlines from
the wall clock and its core compares them with the same, which is not stepped here: so it keeps the
right one.
"""

import mmap
import runpy
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from grpc.aio import _utils as deadlines

from tests.chaos import wall_clock

_OFFSET = struct.Struct("<d")


def set_step(path: Path, seconds: float) -> None:
    """Make the clock of the service that reads this file wrong."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(_OFFSET.pack(seconds))


def step_in(path: Path) -> Callable[[], float]:
    """What a file says now."""
    with path.open("rb") as file:
        shared = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    return lambda: float(_OFFSET.unpack(shared[: _OFFSET.size])[0])


def main() -> None:
    path, _, _, module = sys.argv[1:5]
    deadlines.time = SimpleNamespace(time=wall_clock.right)  # type: ignore[assignment,attr-defined]
    wall_clock.be_wrong_by(step_in(Path(path)))
    sys.argv[:] = sys.argv[4:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
