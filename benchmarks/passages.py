"""How long logs take to index and to search, and how much memory and disk that takes.

    python -m benchmarks.passages [--mebibytes N] [--json FILE]

Synthetic logs of machines go into a temporary folder. A process of its own indexes them into a
database beside them, and then searches it: once to warm up, then in turns. Peak memory is that
process's resident set, all of Python included.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.machine_logs import write_logs
from fedattn.passages.store import PassageStore

QUESTIONS = {
    "rare code": "What happened to gearbox GX-{number:04d}/K?",
    "rare words": "Which gearbox had its bearing seized when the coolant ran out?",
    "frequent code": "What is the state of P-{code}/A?",
    "frequent words": "When was the pressure of the pump high?",
    "most frequent word": "operator",
    "mixed": "Why was pump P-{code}/B stopped after alarm E4{code} by operator 1017?",
    "decimal": "Where was the pressure 51.3?",
    "German": "Wann ist der Druck der Ölpumpe an X-{code}/B gefallen?",
    "nothing": "quetzalcoatlus zymurgy",
}
LIMIT = 40
TURNS = 25


def measure(folder: Path, database: Path) -> dict[str, Any]:
    """Index a folder, then search it; figures of this process."""
    store = PassageStore(folder, database)
    size = sum(path.stat().st_size for path in folder.iterdir())
    began = time.perf_counter()
    store.refresh()
    index_s = time.perf_counter() - began
    began = time.perf_counter()
    store.refresh()
    look_s = time.perf_counter() - began
    index_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    searches = {name: _search(store, question) for name, question in QUESTIONS.items()}
    counts = store.counts
    store.close()
    return {
        "mebibytes": round(size / 2**20),
        "passages": counts.num_passages,
        "index_s": round(index_s, 1),
        "index_mb_per_s": round(size / 1e6 / index_s, 1),
        "look_ms": round(look_s * 1e3, 1),
        "index_peak_mib": round(index_mib),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "database_mib": round(database.stat().st_size / 2**20),
        "searches": searches,
    }


def _search(store: PassageStore, question: str) -> dict[str, float]:
    """Milliseconds of searches for one kind of question, each time with other numbers."""
    took = []
    for turn in range(TURNS):
        words = question.format(number=1 + turn, code=100 + 7 * turn)
        began = time.perf_counter()
        hits = store.search(words, LIMIT)
        took.append((time.perf_counter() - began) * 1e3)
    return {
        "first_ms": round(took[0], 1),
        "p50_ms": round(median(took), 1),
        "p95_ms": round(quantiles(took, n=20)[-1], 1),
        "hits": len(hits),
    }


def measure_apart(mebibytes: int) -> dict[str, Any]:
    """Write logs, and measure them in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "logs"
        folder.mkdir()
        write_logs(folder, mebibytes << 20)
        command = [sys.executable, "-m", "benchmarks.passages", "--measure", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        database = arguments.measure.parent / "state" / "passages.db"
        print(json.dumps(measure(arguments.measure, database)))
        return
    figures = measure_apart(arguments.mebibytes)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
