"""A report's timeline in the Trace Event Format, which ui.perfetto.dev and Chrome read."""

from typing import Any

from fedattn.core.timeline import Activity
from fedattn.rest.answers import QueryAnswer

_ROWS = {
    Activity.OPEN: "model",
    Activity.COMPUTE: "model",
    Activity.WAIT: "model",
    Activity.DECODE: "model",
    Activity.GENERATE: "model",
    Activity.ENCODE: "encode",
    Activity.SEND: "send",
}
"""Activity -> row of the node: encoding and sending go on beside the model."""


def chrome_trace(answer: QueryAnswer) -> dict[str, Any]:
    """One process a node, one row each for model, encoding and sending.

    Args:
        answer: to a query that asked for its timeline.
    """
    rows = sorted(set(_ROWS.values()))
    events: list[dict[str, Any]] = []
    for process, node in enumerate(answer.participants):
        events.append(_name("process_name", process, 0, f"{node.node_id} ({node.role})"))
        events.extend(_name("thread_name", process, i, row) for i, row in enumerate(rows))
        events.extend(
            {
                "name": f"{piece.activity} {piece.layer}",
                "cat": piece.activity,
                "ph": "X",
                "ts": piece.begin_s * 1e6,
                "dur": piece.duration_s * 1e6,
                "pid": process,
                "tid": rows.index(_ROWS[piece.activity]),
                "args": {"layer": piece.layer},
            }
            for piece in node.timeline
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
