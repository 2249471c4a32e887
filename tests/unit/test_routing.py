"""Routes: every row that can change the answer travels, and no other."""

from typing import NamedTuple

from hypothesis import given, settings

from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.routing import Route, route_session
from fedattn.core.spans import SessionLayout, build_layout
from tests.harness.definition import PUBLIC, owner_of, sees
from tests.harness.strategies import layouts


class Transfer(NamedTuple):
    """Rows of one participant that another one uses at a layer."""

    sender: int
    receiver: int
    layer: int


def needed_transfers(layout: SessionLayout) -> set[Transfer]:
    """Rows of others that reach the next token of the publisher, found by walking backwards.

    A token's state after a layer depends on the states before it of all tokens it sees there.
    """
    answer = layout.num_tokens  # the first generated token
    live = {answer}
    transfers: set[Transfer] = set()
    for layer in reversed(range(layout.num_layers)):
        edges = {(i, j) for i in live for j in range(i + 1) if sees(layout, (layer, 0), i, j)}
        for query, key in edges:
            receiver, sender = owner_of(layout, query), owner_of(layout, key)
            if receiver is not PUBLIC and sender is not PUBLIC and sender != receiver:
                transfers.add(Transfer(sender, receiver, layer))
        live |= {key for _, key in edges}
    return transfers


def routed_transfers(routes: tuple[Route, ...]) -> set[Transfer]:
    """What is sent and awaited under `routes`."""
    return {
        Transfer(sender, receiver, layer)
        for receiver, route in enumerate(routes)
        for layer in route.receives
        for sender in route.senders
        if layer in routes[sender].uploads
    }


def route(uploads: set[int], receives: set[int], *senders: int) -> Route:
    return Route(uploads=frozenset(uploads), receives=frozenset(receives), senders=senders)


def layout_of(
    *spans: int, contributors: tuple[int, ...], publisher: tuple[int, ...]
) -> SessionLayout:
    """Five layers, a prefix of one token, the last span is the publisher's."""
    named = [(f"n{place}", length) for place, length in enumerate(spans)]
    return build_layout(
        num_layers=5,
        prefix_len=1,
        contributors=named[:-1],
        publisher=named[-1],
        plans=RolePlans(contributors=SyncPlan(contributors), publisher=SyncPlan(publisher)),
    )


def test_worked_example_of_the_docstring() -> None:
    routes = route_session(layout_of(2, 1, 2, contributors=(1, 3), publisher=(2, 3)))
    assert routes == (
        route({1, 2, 3}, set()),
        route({2, 3}, {1}, 0),
        route(set(), {2, 3}, 0, 1),
    )
    assert [r.last_needed for r in routes] == [3, 3, None]


def test_nobody_uploads_for_a_publisher_that_never_syncs() -> None:
    routes = route_session(layout_of(2, 1, 2, contributors=(0, 1, 2, 3, 4), publisher=()))
    assert routes == (route(set(), set()), route(set(), set(), 0), route(set(), set(), 0, 1))


def test_publisher_alone_waits_for_nobody() -> None:
    assert route_session(layout_of(2, contributors=(), publisher=(0, 1))) == (route(set(), set()),)


def test_contributor_without_tokens_neither_sends_nor_receives() -> None:
    routes = route_session(layout_of(2, 0, 2, contributors=(1,), publisher=(2,)))
    assert routes == (route({2}, set()), route(set(), set(), 0), route(set(), {2}, 0))


def test_publisher_waits_for_nobody_when_all_contributors_are_empty() -> None:
    routes = route_session(layout_of(0, 0, 2, contributors=(1,), publisher=(2,)))
    assert routes == (route(set(), set()), route(set(), set()), route(set(), set()))


@settings(max_examples=400)
@given(layouts(min_members=2))
def test_exactly_the_rows_that_can_change_the_answer_travel(layout: SessionLayout) -> None:
    assert routed_transfers(route_session(layout)) == needed_transfers(layout)


@given(layouts(min_members=2))
def test_uploads_are_exactly_what_somebody_needs(layout: SessionLayout) -> None:
    needed = needed_transfers(layout)
    for place, member_route in enumerate(route_session(layout)):
        assert member_route.uploads == {t.layer for t in needed if t.sender == place}


@given(layouts(min_members=2))
def test_receives_are_exactly_the_layers_at_which_rows_come(layout: SessionLayout) -> None:
    needed = needed_transfers(layout)
    for place, member_route in enumerate(route_session(layout)):
        assert member_route.receives == {t.layer for t in needed if t.receiver == place}


@given(layouts(min_members=2))
def test_every_sender_uploads_every_layer_its_receivers_await(layout: SessionLayout) -> None:
    routes = route_session(layout)
    for member_route in routes:
        for sender in member_route.senders:
            assert member_route.receives <= routes[sender].uploads
