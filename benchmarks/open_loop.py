"""Scheduled load: sessions begin when their schedule says, however late the earlier ones are.

Arrivals are Poisson's, from a seed. A burst, or a client that waits for each answer, hides how long
those wait who come meanwhile; here each latency counts from the time at which work was due.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from benchmarks.dummies import DummyNode, LostMemberError, Pace, Schedule, frame_bytes

_LONGEST_S = 120.0  # that a run may last beyond its schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When sessions begin.

    Attributes:
        count: sessions.
        rate_per_s: on average; None for each when the one before has ended.
        seed: of the times between them, and of who takes part.
    """

    count: int
    rate_per_s: float | None
    seed: int = 1

    def times_s(self) -> list[float]:
        """From the begin of the load, ascending."""
        if self.rate_per_s is None:
            return [0.0] * self.count
        gaps = np.random.default_rng(self.seed).exponential(1 / self.rate_per_s, self.count)
        return [float(moment) for moment in np.cumsum(gaps)]


async def run_load(nodes: list[DummyNode], arrivals: Arrivals, pace: Pace) -> Schedule:
    """Hold the schedule.

    Args:
        nodes: any of them publishes, any others contribute.
        arrivals: when sessions begin.
        pace: what each session moves.

    Raises:
        TimeoutError: it lasts two minutes longer than it should.
    """
    schedule = Schedule(pace)
    for node in nodes:
        node.schedule = schedule
    members = _members(nodes, pace.contributors, arrivals.seed)
    times_s = arrivals.times_s()
    async with asyncio.timeout(times_s[-1] + _LONGEST_S + pace.length_s * _in_a_row(arrivals)):
        if arrivals.rate_per_s is None:
            for _ in times_s:
                await _run_session(next(members), schedule, time.monotonic())
        else:
            await _run_open(members, schedule, times_s)
        await asyncio.gather(*(task for node in nodes for task in node.tasks))
    return schedule


def summary(schedule: Schedule, span_len: int) -> dict[str, Any]:
    """What a schedule saw: latencies in ms, MB that reached receivers."""
    openings, latencies = (
        np.array(values or [np.nan]) * 1e3 for values in (schedule.openings_s, schedule.latencies_s)
    )
    return {
        "opened": len(schedule.openings_s),
        "failures": schedule.failures,
        "most_open": schedule.most_open,
        "contributors": schedule.pace.contributors,
        "frames": len(schedule.latencies_s),
        "frame_kb": frame_bytes(span_len) / 1e3,
        "relayed_mb": len(schedule.latencies_s) * frame_bytes(span_len) / 1e6,
        "opening_p50_ms": float(np.percentile(openings, 50)),
        "opening_p99_ms": float(np.percentile(openings, 99)),
        "frame_p50_ms": float(np.percentile(latencies, 50)),
        "frame_p99_ms": float(np.percentile(latencies, 99)),
    }


def _in_a_row(arrivals: Arrivals) -> int:
    return 1 if arrivals.rate_per_s is not None else arrivals.count


async def _run_open(
    members: Iterator[list[DummyNode]], schedule: Schedule, times_s: list[float]
) -> None:
    begin = time.monotonic()
    async with asyncio.TaskGroup() as running:
        for moment in times_s:
            await asyncio.sleep(begin + moment - time.monotonic())
            running.create_task(_run_session(next(members), schedule, begin + moment))


async def _run_session(nodes: list[DummyNode], schedule: Schedule, begin: float) -> None:
    publisher, *contributors = nodes
    schedule.open_now += 1
    schedule.most_open = max(schedule.most_open, schedule.open_now)
    try:
        await publisher.publish([node.node_id for node in contributors], begin)
    except LostMemberError:
        schedule.note_failure("a member was lost")
    except grpc.aio.AioRpcError as error:
        schedule.note_failure(f"publisher: {error.code().name}")
    finally:
        schedule.open_now -= 1


def _members(nodes: list[DummyNode], contributors: int, seed: int) -> Iterator[list[DummyNode]]:
    """A publisher and its contributors, for ever."""
    random = np.random.default_rng(seed)
    while True:
        chosen = random.choice(len(nodes), size=contributors + 1, replace=False)
        yield [nodes[place] for place in chosen]
