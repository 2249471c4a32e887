"""What a person approved is given, as much and as often as they said, and nothing more."""

import json
import os
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fedattn.core.errors import (
    ApprovalNeededError,
    ConfigurationError,
    InvalidRequestError,
    PolicyRefusedError,
)
from fedattn.runtime.approvals import (
    MAX_ENTRIES,
    MAX_PENDING_OF_A_PUBLISHER,
    PENDING_S,
    ApprovalStore,
    Decision,
)
from fedattn.runtime.state import (
    APPROVALS_FILE,
    find_state_dir,
    locked,
    make_state_dir,
    replace_file,
)
from services.participant.approvals import ApprovalGate
from services.participant.policy import PolicyFile
from tests.unit.consent.asks import Clock, ask


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> ApprovalStore:
    return ApprovalStore(tmp_path, clock)


@pytest.fixture
def gate(store: ApprovalStore) -> ApprovalGate:
    return ApprovalGate(store)


def queue(gate: ApprovalGate, **changes: Any) -> str:
    """Ask, be told to wait, and return the id."""
    with pytest.raises(ApprovalNeededError, match="ask again once it is approved"):
        gate.require(ask(**changes))
    return gate.store.entries()[-1].id


def test_first_ask_waits_in_the_list_with_its_sizes(gate: ApprovalGate) -> None:
    approval_id = queue(gate)
    (entry,) = gate.store.entries()
    assert entry.model_dump(exclude={"id"}) == {
        "decision": Decision.PENDING,
        "publisher": "desk-1",
        "subject": "anna@ward-1",
        "purpose": "maintenance",
        "blocks": (7, 9, 11),
        "rows": 96,
        "keep_ratio": 1.0,
        "is_asked": False,
        "bytes": 1000,
        "asked_at": 0.0,
        "expires_at": PENDING_S,
        "uses_left": 0,
    }
    assert queue(gate, session_id="s2") == approval_id  # the same again is not listed twice
    assert queue(gate, layers=(7,), num_rows=1) == approval_id


def test_approval_is_for_one_use_within_an_hour_unless_said_otherwise(
    gate: ApprovalGate, clock: Clock
) -> None:
    gate.store.approve(queue(gate))
    gate.require(ask())
    again = queue(gate)
    gate.store.approve(again)
    clock.seconds = 3600
    assert queue(gate) != again


def test_approval_for_several_uses_ends_after_them(gate: ApprovalGate, clock: Clock) -> None:
    approval_id = queue(gate)
    assert gate.store.approve(approval_id, uses=2, lifetime_s=100).uses_left == 2
    clock.seconds = 99
    gate.require(ask())
    gate.require(ask(layers=(9,), num_rows=1, num_bytes=0))
    queue(gate)


@pytest.mark.parametrize(
    "changes",
    [
        {"publisher": "desk-2"},
        {"subject": "eve"},
        {"subject": ""},
        {"purpose": "audit"},
        {"layers": (7, 9, 11, 13)},
        {"layers": (8,)},
        {"num_rows": 97},
        {"num_bytes": 1001},
    ],
)
def test_approval_of_something_else_or_less_is_none(
    gate: ApprovalGate, changes: dict[str, Any]
) -> None:
    gate.store.approve(queue(gate), uses=10)
    queue(gate, **changes)
    pending = [e for e in gate.store.entries() if e.decision is Decision.PENDING]
    assert len(pending) == 1


def test_pending_ask_never_grows_while_its_owner_looks_at_it(gate: ApprovalGate) -> None:
    seen = queue(gate)
    queue(gate, num_rows=5000)
    granted = gate.store.approve(seen)
    assert granted.rows == 96
    with pytest.raises(ApprovalNeededError):
        gate.require(ask(num_rows=5000))


def test_denial_refuses_such_asks_of_any_size_for_a_while(gate: ApprovalGate, clock: Clock) -> None:
    gate.store.deny(queue(gate), lifetime_s=600)
    for changes in ({}, {"num_rows": 5000}, {"layers": (1,)}):
        with pytest.raises(PolicyRefusedError, match=r"has denied .* for 10 minutes"):
            gate.require(ask(**changes))
    queue(gate, subject="bert")
    clock.seconds = 600
    queue(gate)


def test_denial_ends_an_approval_and_approval_a_denial(gate: ApprovalGate) -> None:
    approval_id = queue(gate)
    gate.store.approve(approval_id, uses=5)
    gate.store.deny(approval_id)
    with pytest.raises(PolicyRefusedError):
        gate.require(ask())
    gate.store.approve(approval_id)
    gate.require(ask())


def test_denial_holds_over_older_approvals_of_any_size(gate: ApprovalGate) -> None:
    small = queue(gate)
    large = queue(gate, num_rows=5000)
    gate.store.approve(small, uses=10)
    gate.store.deny(large)
    for changes in ({}, {"num_rows": 1}, {"num_rows": 5000}):
        with pytest.raises(PolicyRefusedError, match="has denied"):
            gate.require(ask(**changes))
    assert gate.store.entries()[0].uses_left == 10


def test_use_that_came_to_nothing_is_given_back(gate: ApprovalGate) -> None:
    gate.store.approve(queue(gate), uses=2)
    first, second = gate.require(ask()), gate.require(ask())
    assert gate.store.entries() == ()
    gate.give_back(second)
    gate.give_back(first)
    (entry,) = gate.store.entries()
    assert (entry.decision, entry.uses_left) == (Decision.APPROVED, 2)


def test_use_is_not_given_back_against_a_denial_or_after_its_time(
    gate: ApprovalGate, clock: Clock
) -> None:
    approval_id = queue(gate)
    gate.store.approve(approval_id, uses=2, lifetime_s=100)
    used = gate.require(ask())
    gate.store.deny(approval_id, lifetime_s=50)
    gate.give_back(used)
    with pytest.raises(PolicyRefusedError):
        gate.require(ask())
    clock.seconds = 50
    gate.give_back(used)
    assert gate.store.entries() == ()
    gate.store.approve(queue(gate), lifetime_s=100)
    used = gate.require(ask())
    clock.seconds = 150
    gate.give_back(used)
    assert gate.store.entries() == ()


def test_pending_ask_expires(gate: ApprovalGate, clock: Clock) -> None:
    queue(gate)
    clock.seconds = PENDING_S
    assert gate.store.entries() == ()


def test_list_is_bounded_a_publisher_and_in_all(gate: ApprovalGate) -> None:
    for number in range(MAX_PENDING_OF_A_PUBLISHER):
        queue(gate, subject=str(number))
    with pytest.raises(ApprovalNeededError, match="too many asks"):
        gate.require(ask(subject="more"))
    queue(gate, publisher="desk-2")
    for number in range(MAX_ENTRIES - MAX_PENDING_OF_A_PUBLISHER - 1):
        queue(gate, publisher=f"p{number // 10}", subject=str(number))
    with pytest.raises(ApprovalNeededError, match="too many asks"):
        gate.require(ask(publisher="late"))
    assert len(gate.store.entries()) == MAX_ENTRIES


@pytest.mark.parametrize(
    "numbers",
    [{"uses": 0}, {"uses": 10_001}, {"lifetime_s": 0}, {"lifetime_s": float("nan")}],
)
def test_unknown_id_and_numbers_out_of_range_are_refused(
    gate: ApprovalGate, numbers: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError, match="no ask has the id 'x'"):
        gate.store.deny("x")
    approval_id = queue(gate)
    with pytest.raises(InvalidRequestError, match="expected 1 to 10000 uses"):
        gate.store.approve(approval_id, **numbers)
    with pytest.raises(InvalidRequestError):
        gate.store.deny(approval_id, lifetime_s=-1)


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b'[{"id": "x"}]', b"\xff"])
def test_damaged_file_grants_nothing_and_is_named(gate: ApprovalGate, content: bytes) -> None:
    path = gate.store.folder / APPROVALS_FILE
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"expected a list of asks.*move the file away"):
        gate.store.entries()
    with pytest.raises(ApprovalNeededError, match="cannot be read") as refused:
        gate.require(ask())
    assert str(gate.store.folder) not in str(refused.value)
    assert path.read_bytes() == content


def test_process_that_keeps_the_lock_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    pauses: list[float] = []
    gate = ApprovalGate(ApprovalStore(tmp_path, pause=pauses.append))
    with locked(tmp_path / f"{APPROVALS_FILE}.lock"):
        with pytest.raises(ConfigurationError, match=r"has held approvals.json.lock for 5 s; end"):
            gate.store.use(ask())
        with pytest.raises(ApprovalNeededError, match="cannot be read"):
            gate.require(ask())
    assert sum(pauses) == pytest.approx(2 * 5.0)


def test_lock_is_had_once_the_other_process_is_through(tmp_path: Path) -> None:
    with ExitStack() as other:
        other.enter_context(locked(tmp_path / f"{APPROVALS_FILE}.lock"))
        store = ApprovalStore(tmp_path, pause=lambda _: other.close())
        assert store.use(ask()) is not None


def test_folder_that_is_gone_grants_nothing(tmp_path: Path) -> None:
    gate = ApprovalGate(ApprovalStore(tmp_path / "none"))
    with pytest.raises(ApprovalNeededError, match="cannot be read"):
        gate.require(ask())


def test_file_is_for_its_owner_alone_and_holds_no_more_than_the_list(gate: ApprovalGate) -> None:
    queue(gate)
    path = gate.store.folder / APPROVALS_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(json.loads(path.read_bytes())) == 1
    assert {file.name for file in gate.store.folder.iterdir()} == {path.name, f"{path.name}.lock"}


def test_failed_write_leaves_the_old_file(
    gate: ApprovalGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(gate)
    before = gate.store.entries()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        with pytest.raises(ConfigurationError, match=r"cannot be read or written \(no space"):
            gate.store.deny(before[0].id)
    assert gate.store.entries() == before
    assert len(list(gate.store.folder.iterdir())) == 2


_USES = """
import sys
from pathlib import Path
from fedattn.runtime.approvals import ApprovalStore, Decision
from tests.unit.consent.asks import ask
store = ApprovalStore(Path(sys.argv[1]))
print(sum(store.use(ask()).decision is Decision.APPROVED for _ in range(100)))
"""


def test_processes_at_once_use_an_approval_as_often_as_it_says(tmp_path: Path) -> None:
    gate = ApprovalGate(ApprovalStore(tmp_path))
    gate.store.approve(queue(gate), uses=150)
    running = [
        subprocess.Popen([sys.executable, "-c", _USES, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    used = [int(process.communicate()[0]) for process in running]
    assert sum(used) == 150
    assert all(process.returncode == 0 for process in running)


def test_policy_waits_for_approval_once_a_session(
    tmp_path: Path, gate: ApprovalGate, clock: Clock
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('approval = "always"\nmax_blocks = 3')
    policy = PolicyFile(path, gate, monotonic=clock)
    with pytest.raises(PolicyRefusedError):
        policy.check(ask(layers=(1, 2, 3, 4)))
    assert gate.store.entries() == ()  # what a rule refuses is not worth a person's time
    with pytest.raises(ApprovalNeededError):
        policy.check(ask())
    gate.store.approve(gate.store.entries()[0].id)
    policy.check(ask())
    policy.check(ask(num_rows=48))  # the final sizes of the same session
    with pytest.raises(ApprovalNeededError):
        policy.check(ask(num_rows=97))
    policy.note_sent(500, "s1")
    with pytest.raises(ApprovalNeededError):
        policy.check(ask())  # another session of the same name


def test_state_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = make_state_dir(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"state folder .*file/b: .*--state DIR"):
        make_state_dir(tmp_path / "file" / "b")


def test_command_finds_the_only_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="found none; give --state DIR"):
        find_state_dir(None)
    only = make_state_dir(tmp_path / "fedattn" / "node-a")
    assert find_state_dir(None) == only
    make_state_dir(tmp_path / "fedattn" / "node-b")
    with pytest.raises(ConfigurationError, match="found node-a, node-b; give --state DIR"):
        find_state_dir(None)
    assert find_state_dir(only) == only
    with pytest.raises(ConfigurationError, match="no such folder"):
        find_state_dir(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    replace_file(tmp_path / "x", b"")
    assert (tmp_path / "x").stat().st_uid == 1234
    ApprovalStore(tmp_path).use(ask())
    assert {file.stat().st_uid for file in tmp_path.iterdir()} == {1234}
