"""Synthetic logs of machines: lines as plants write them, with numbers, codes and some German."""

import random
from datetime import datetime, timedelta
from pathlib import Path

_MACHINES = ("pump", "valve", "conveyor", "compressor", "boiler", "press", "mixer", "chiller")
_QUANTITIES = ("pressure", "temperature", "vibration", "flow", "current", "level", "speed")
_LEVELS = ("INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARN", "ERROR")
_MESSAGES = (
    "{machine} {code} {quantity} {value:.1f} is within limits",
    "{machine} {code} {quantity} high: {value:.1f} over {limit}, controller reduces speed",
    "{machine} {code} started by operator {operator} on line {line}",
    "{machine} {code} stopped after alarm E{alarm}, acknowledged by operator {operator}",
    "cycle {cycle} done in {value:.2f} s, batch {batch}, part {part} accepted",
    "part {part} rejected: {quantity} sensor reads {value:.2f}, tolerance {limit}",
    "maintenance of {machine} {code} due in {limit} hours, oil filter and bearing",
    "Ölpumpendruck an {code} gefallen auf {value:.1f} bar, Förderband {line} angehalten",
    "heartbeat from 10.0.{line}.{limit} latency {value:.1f} ms session {session:08x}",
    "plc read block {cycle} register {alarm} value {limit} ok",
)
NEEDLE = "bearing of gearbox GX-{number:04d}/K seized after coolant ran out, replaced by Okafor"


def write_logs(folder: Path, size: int, file_bytes: int = 128 << 20) -> int:
    """Write files of about `file_bytes`, together at least `size` bytes; how many lines.

    A needle stands in every 20,000th line, with a number of its own.
    """
    draw = random.Random(1)  # noqa: S311 - not for secrets
    now = datetime(2026, 1, 1)
    written = num_lines = number = 0
    while written < size:
        with (folder / f"machines-{number:03d}.log").open("w", encoding="utf-8") as file:
            stop = min(written + file_bytes, size)
            while written < stop:
                now += timedelta(milliseconds=draw.randrange(1, 400))
                written += file.write(_line(draw, now, num_lines))
                num_lines += 1
        number += 1
    return num_lines


def _line(draw: random.Random, now: datetime, index: int) -> str:
    stamp = now.isoformat(sep=" ", timespec="milliseconds")
    if index % 20_000 == 7:
        return f"{stamp} ERROR [plant] {NEEDLE.format(number=index // 20_000)}\n"
    message = draw.choice(_MESSAGES).format(
        machine=draw.choice(_MACHINES),
        code=f"{draw.choice('PVCKBMX')}-{draw.randrange(100, 400)}/{draw.choice('AB')}",
        quantity=draw.choice(_QUANTITIES),
        value=draw.gauss(50, 20),
        limit=draw.randrange(200),
        operator=draw.randrange(1000, 1060),
        line=draw.randrange(12),
        alarm=draw.randrange(4000, 5000),
        cycle=index,
        batch=index // 500,
        part=f"{draw.randrange(10_000)}-{draw.choice('ABCXYZ')}{draw.choice('KLMZ')}",
        session=draw.getrandbits(32),
    )
    return f"{stamp} {draw.choice(_LEVELS)} [{draw.choice(_MACHINES)}ctl] {message}\n"
