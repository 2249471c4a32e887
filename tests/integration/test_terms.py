"""A node takes part only on terms that fit its model and its public prefix."""

from dataclasses import replace

import pytest

from fedattn.core.errors import SessionStateError
from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.spans import Role, build_layout
from fedattn.core.terms import SessionTerms
from fedattn.model.loading import LoadedModel
from services.participant.node import ParticipantNode
from services.participant.terms import check_fit
from tests.harness.runners import make_node


@pytest.fixture
def node(model: LoadedModel) -> ParticipantNode:
    return make_node("a", model, None)


def terms_of(node: ParticipantNode, prefix_len: int) -> SessionTerms:
    shape = node.prefiller.shape
    every = PlanSpec("all").resolve(shape.num_layers)
    return SessionTerms(
        session_id="0" * 32,
        layout=build_layout(
            num_layers=shape.num_layers,
            prefix_len=prefix_len,
            contributors=[("a", 2)],
            publisher=("publisher", 1),
            plans=RolePlans(contributors=every, publisher=every),
        ),
        shape=shape,
        deadline_s=1,
        progress_timeout_s=1,
        min_participants=1,
    )


def test_terms_of_this_model_and_prefix_are_taken(node: ParticipantNode) -> None:
    for prefix_len in (0, len(node.prefix)):
        check_fit(terms_of(node, prefix_len), node, Role.CONTRIBUTOR, 2)


def test_terms_of_another_prefix_are_refused(node: ParticipantNode) -> None:
    terms = terms_of(node, len(node.prefix) + 1)
    with pytest.raises(SessionStateError, match="tokens of public prefix, expected 0 or"):
        check_fit(terms, node, Role.CONTRIBUTOR, 2)


def test_terms_of_another_model_are_refused(node: ParticipantNode) -> None:
    terms = terms_of(node, len(node.prefix))
    other = replace(terms, shape=replace(terms.shape, num_kv_heads=terms.shape.num_kv_heads + 1))
    with pytest.raises(SessionStateError, match="the terms are for KV rows of"):
        check_fit(other, node, Role.CONTRIBUTOR, 2)


@pytest.mark.parametrize(
    ("role", "span_len", "complaint"),
    [
        (Role.PUBLISHER, 1, "the terms do not have a as a publisher"),
        (Role.CONTRIBUTOR, 3, "the terms give a 2 tokens, expected 3"),
    ],
)
def test_terms_that_name_another_publisher_or_length_are_refused(
    role: Role, span_len: int, complaint: str, node: ParticipantNode
) -> None:
    terms = terms_of(node, len(node.prefix))
    with pytest.raises(SessionStateError, match=complaint):
        check_fit(terms, node, role, span_len)


def test_terms_without_this_node_are_refused(model: LoadedModel) -> None:
    stranger = make_node("b", model, None)
    terms = terms_of(stranger, len(stranger.prefix))
    with pytest.raises(SessionStateError, match="the terms do not have b as a contributor"):
        check_fit(terms, stranger, Role.CONTRIBUTOR, 2)
