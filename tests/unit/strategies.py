"""Hypothesis strategies for plans and layouts."""

from hypothesis import strategies as st

from fedattn.core.plans import SyncPlan
from fedattn.core.spans import Member, Role, SessionLayout, Span


def layer_tuples(num_layers: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Sorted, unique layers below `num_layers`."""
    layers = st.frozensets(st.integers(0, num_layers - 1), max_size=num_layers)
    return layers.map(lambda chosen: tuple(sorted(chosen)))


@st.composite
def layouts(draw: st.DrawFn, *, min_members: int = 1) -> SessionLayout:
    """Sessions of up to 5 members and layers, each member with its own plan, some spans empty."""
    num_layers = draw(st.integers(1, 5))
    prefix_len = draw(st.integers(0, 2))
    lengths = draw(st.lists(st.integers(0, 2), min_size=min_members, max_size=5))
    members: list[Member] = []
    start = prefix_len
    for index, length in enumerate(lengths):
        is_last = index == len(lengths) - 1
        members.append(
            Member(
                node_id=f"n{index}",
                role=Role.PUBLISHER if is_last else Role.CONTRIBUTOR,
                span=Span(start, start + length),
                plan=SyncPlan(draw(layer_tuples(num_layers))),
            )
        )
        start += length
    return SessionLayout(num_layers=num_layers, prefix_len=prefix_len, members=tuple(members))
