"""Which nodes are invited, where there are more than a session has places."""

from dataclasses import replace

import pytest

from fedattn.core.request import SessionRequest
from services.aggregator import choosing
from services.aggregator.choosing import choose_contributors
from services.aggregator.registry import NodeRegistry
from services.aggregator.standing import Standing
from tests.harness.raw import join_message
from tests.unit.test_quotas import Clock
from tests.unit.test_relay import REQUEST


@pytest.fixture
def registry() -> NodeRegistry:
    nodes = NodeRegistry(10)
    for name in ("a", "b", "publisher"):
        nodes.join(join_message(name))
    return nodes


def chosen(registry: NodeRegistry, standing: Standing, request: SessionRequest) -> list[str]:
    publisher = registry.find("publisher")
    assert publisher is not None
    choice = choose_contributors(request, publisher, registry, standing)
    return [node.node_id for node in choice.chosen]


def test_late_node_comes_last_then_rests_unless_it_is_named_or_needed(
    registry: NodeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    standing = Standing(10, first_pause_s=30.0, max_pause_s=30.0, clock=clock)
    assert chosen(registry, standing, REQUEST) == ["a", "b"]
    standing.note_failure("a", "it is mute", clock.now_s)
    assert chosen(registry, standing, REQUEST) == ["b", "a"]
    with monkeypatch.context() as patch:
        patch.setattr(choosing, "MAX_MEMBERS", 2)
        assert chosen(registry, standing, REQUEST) == ["b"]
    clock.now_s += 1.0
    standing.note_failure("a", "it is mute", clock.now_s)
    assert chosen(registry, standing, REQUEST) == ["b"]
    for changes in ({"min_participants": 3}, {"contributors": ("b", "a")}):
        request = replace(REQUEST, options=replace(REQUEST.options, **changes))
        assert chosen(registry, standing, request) == ["b", "a"]
