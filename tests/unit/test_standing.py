"""What the aggregator remembers of nodes that let others wait."""

from fedattn.core.report import NodeState
from services.aggregator.standing import Standing
from tests.unit.test_quotas import Clock


def make_standing(clock: Clock, max_nodes: int = 10) -> Standing:
    return Standing(max_nodes, first_pause_s=30.0, max_pause_s=100.0, clock=clock)


def fail(standing: Standing, clock: Clock, node_id: str = "a") -> None:
    """A node fails in a session that begins now."""
    clock.now_s += 1.0
    standing.note_failure(node_id, "it is mute", clock.now_s)


def pauses(standing: Standing, clock: Clock, num_failures: int) -> list[float]:
    """How long each pause lasts if the node fails again as soon as it is asked again."""
    lengths: list[float] = []
    for _ in range(num_failures):
        fail(standing, clock)
        begun = clock.now_s
        while standing.pause_of("a"):
            clock.now_s += 1.0
        lengths.append(clock.now_s - begun)
    return lengths


def test_node_is_late_once_then_rests_longer_with_each_failure_in_a_row() -> None:
    clock = Clock()
    standing = make_standing(clock)
    fail(standing, clock)
    assert standing.of("a").state is NodeState.LATE
    assert standing.is_late("a")
    assert pauses(standing, clock, 4) == [30.0, 60.0, 100.0, 100.0]
    assert standing.of("a").state is NodeState.LATE  # until it does its part


def test_one_good_session_clears_all_once_the_pause_is_over() -> None:
    clock = Clock()
    standing = make_standing(clock)
    pauses(standing, clock, 3)
    standing.note_good("a")
    assert standing.of("a").state is NodeState.GOOD
    assert not standing.is_late("a")
    assert pauses(standing, clock, 1) == [0.0]


def test_good_session_within_a_pause_clears_nothing() -> None:
    clock = Clock()
    standing = make_standing(clock)
    fail(standing, clock)
    fail(standing, clock)
    standing.note_good("a")
    assert standing.pause_of("a")
    clock.now_s += 30.0
    assert pauses(standing, clock, 1) == [60.0]


def test_pause_says_why_and_how_long_and_concerns_one_node() -> None:
    clock = Clock()
    standing = make_standing(clock)
    fail(standing, clock)
    fail(standing, clock)
    clock.now_s += 10.0
    assert standing.pause_of("a") == (
        "a let others wait in earlier sessions (it is mute); queries that do not name it go "
        "without it for another 20 s"
    )
    record = standing.of("a")
    assert (record.state, record.reason, record.rests_for_s) == (
        NodeState.RESTING,
        "it is mute",
        20.0,
    )
    assert standing.pause_of("b") == ""


def test_failures_of_sessions_at_once_count_as_one() -> None:
    clock = Clock()
    standing = make_standing(clock)
    clock.now_s = 10.0
    standing.note_failure("a", "first", since=0.0)
    clock.now_s = 11.0
    standing.note_failure("a", "second", since=9.0)
    assert standing.of("a").reason == "first"
    assert standing.of("a").state is NodeState.LATE
    assert pauses(standing, clock, 1) == [30.0]


def test_memory_is_bounded() -> None:
    clock = Clock()
    standing = make_standing(clock, max_nodes=2)
    for node_id in "abc":
        fail(standing, clock, node_id)
    assert [standing.is_late(node_id) for node_id in "abc"] == [False, True, True]
