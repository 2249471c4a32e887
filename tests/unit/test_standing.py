"""What the aggregator remembers of nodes that let others wait."""

from services.aggregator.standing import Standing
from tests.unit.test_quotas import Clock


def make_standing(clock: Clock, max_nodes: int = 10) -> Standing:
    return Standing(max_nodes, first_pause_s=30.0, max_pause_s=100.0, clock=clock)


def pauses(standing: Standing, clock: Clock, num_failures: int) -> list[float]:
    """How long each pause lasts if the node fails again as soon as it is asked again."""
    lengths: list[float] = []
    for _ in range(num_failures):
        standing.note_failure("a", "it is mute")
        begun = clock.now_s
        while standing.pause_of("a"):
            clock.now_s += 1.0
        lengths.append(clock.now_s - begun)
    return lengths


def test_pause_grows_with_each_failure_in_a_row_up_to_the_longest() -> None:
    clock = Clock()
    assert pauses(make_standing(clock), clock, 4) == [30.0, 60.0, 100.0, 100.0]


def test_one_good_session_clears_all_once_the_pause_is_over() -> None:
    clock = Clock()
    standing = make_standing(clock)
    pauses(standing, clock, 3)
    standing.note_good("a")
    assert pauses(standing, clock, 1) == [30.0]


def test_good_session_within_a_pause_clears_nothing() -> None:
    clock = Clock()
    standing = make_standing(clock)
    standing.note_failure("a", "it is mute")
    standing.note_good("a")
    assert standing.pause_of("a")
    clock.now_s = 30.0
    assert pauses(standing, clock, 1) == [60.0]


def test_pause_says_why_and_how_long_and_concerns_one_node() -> None:
    clock = Clock()
    standing = make_standing(clock)
    standing.note_failure("a", "it is mute")
    clock.now_s = 10.0
    assert standing.pause_of("a") == (
        "a let others wait in an earlier session (it is mute); queries that do not name it go "
        "without it for another 20 s"
    )
    assert standing.pause_of("b") == ""


def test_failures_of_sessions_at_once_count_as_one() -> None:
    clock = Clock()
    standing = make_standing(clock)
    standing.note_failure("a", "first")
    standing.note_failure("a", "second")
    assert "first" in standing.pause_of("a")
    clock.now_s = 31.0
    assert pauses(standing, clock, 1) == [60.0]


def test_memory_is_bounded() -> None:
    standing = make_standing(Clock(), max_nodes=2)
    for node_id in "abc":
        standing.note_failure(node_id, "it is mute")
    assert [bool(standing.pause_of(node_id)) for node_id in "abc"] == [False, True, True]
