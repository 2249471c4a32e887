"""Whether the gateway is reached, lets the caller in, and knows this node."""

from collections.abc import Iterator

from fedattn.cli.doctor.finding import Found, ok, skipped, warning
from fedattn.cli.doctor.subject import Subject
from fedattn.cli.nodes import joined


def check_gateway(subject: Subject) -> Iterator[Found]:
    """Asks who is joined, as `fedattn nodes`."""
    if subject.gateway is None:
        yield skipped("no gateway was named", "give --gateway, and --api-key if it asks for one")
        return
    nodes = joined(subject.gateway.participants())
    yield ok(f"{subject.gateway.endpoint} lets you in; {len(nodes)} nodes are joined")
    if subject.node_id is None:
        return
    own = next((node for node in nodes if node.node_id == subject.node_id), None)
    if own is None:
        yield warning(
            f"{subject.node_id} is not joined there",
            "start the node, or see its log: journalctl -u fedattn-participant",
        )
    elif own.warnings:
        yield warning(f"{subject.node_id} is joined: {'; '.join(own.warnings)}", "see its log")
    else:
        yield ok(f"{subject.node_id} is joined, for {own.joined_for_s:.0f} s")
