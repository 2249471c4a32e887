"""A node's owner decides who gets rows, and nobody else."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fedattn.core.compression import num_kept
from fedattn.core.errors import ApprovalNeededError, ConfigurationError, PolicyRefusedError
from fedattn.core.plans import shared_plan
from fedattn.core.request import Exchange, SessionOptions, SessionRequest, describe_prefix
from fedattn.core.spans import PrefixMode
from services.participant.policy import PolicyFile, check_policy, read_policy
from services.participant.policy_rules import Policy
from tests.harness.codebase import ROOT
from tests.unit.consent.asks import Clock, ask

MONDAY_NOON = datetime(2026, 11, 30, 12, 0)


def policy_file(path: Path | None, clock: Clock | None = None) -> PolicyFile:
    return PolicyFile(path, monotonic=clock or Clock(), local_time=lambda: MONDAY_NOON)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_without_a_file_everything_but_the_lookup_block_is_open() -> None:
    policy = policy_file(None)
    policy.check(ask(layers=tuple(range(1, 30)), num_bytes=1 << 40))
    policy.check(ask(layers=()))
    with pytest.raises(
        PolicyRefusedError, match=r"block 0 .* 1 and up; .* auto.* lowest_block = 0 "
    ):
        policy.check(ask(layers=(0, 1)))
    assert policy.current().max_keep_ratio(10_000) == 1.0
    assert policy.current().withheld == ()
    assert policy.current().cap_lifetime(3600) == 3600


@pytest.mark.parametrize(
    ("rule", "changes", "words"),
    [
        ('publishers = ["desk-[2-9]", "ward"]', {}, "publishers: 'desk-1' asked"),
        ("publishers = []", {}, "publishers"),
        ('publishers = ["DESK-1"]', {}, "publishers"),
        ('subjects = ["*@ward-2"]', {}, "subjects: the subject is 'anna@ward-1'"),
        ('subjects = ["?*"]', {"subject": ""}, "subjects: the subject is ''"),
        ('purposes = ["care", "audit"]', {}, "purpose is 'maintenance', allowed: 'care', 'audit'"),
        ("lowest_block = 8", {}, "lowest_block: block 7 was asked for, allowed: 8 and up"),
        ("max_blocks = 2", {}, "max_blocks: 3 blocks were asked for, allowed: 2"),
        ("max_bytes_per_query = 999", {}, "max_bytes_per_query: 1000 bytes .*allowed: 999"),
        ("max_bytes_per_hour = 999", {}, "max_bytes_per_hour: 1000 bytes after 0 .*allowed: 999"),
        ("max_queries_per_hour = 0", {}, "max_queries_per_hour: 0 were .*allowed: 0"),
        ('hours = "12:01-18:00"', {}, "hours: it is mon 12:00 there, allowed: 12:01-18:00"),
        ('hours = "13:00-12:00"', {}, "hours"),
        ('days = ["sat", "sun"]', {}, "days: it is mon 12:00 .*the whole day on sat sun"),
    ],
)
def test_refusal_names_rule_asked_allowed_and_who_can_change_it(
    path: Path, rule: str, changes: dict[str, Any], words: str
) -> None:
    path.write_text(rule)
    with pytest.raises(PolicyRefusedError, match=words) as refused:
        policy_file(path).check(ask(**changes))
    assert "only its owner can change that" in str(refused.value)
    assert str(path.parent) not in str(refused.value)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("rows_may_leave = false", "may_be_asked: rows may not leave, and it may not be asked; "),
        ("", "may_be_asked: exchange ask was asked for, allowed: rows"),
    ],
)
def test_who_may_not_be_asked_says_what_else_may_be(path: Path, rules: str, words: str) -> None:
    path.write_text(f"may_be_asked = false\n{rules}")
    exchange = Exchange.ASK if not rules else Exchange.AUTO
    request = SessionRequest(
        node_id="desk-1",
        span_len=1,
        prefix=describe_prefix(PrefixMode.PUBLIC, []),
        plans=shared_plan([1]),
        max_new_tokens=1,
        options=SessionOptions(exchange=exchange),
    )
    with pytest.raises(PolicyRefusedError, match=words):
        policy_file(path).current().is_asked(request)


@pytest.mark.parametrize("name", ["publishers", "subjects"])
def test_refusal_does_not_tell_who_else_is_allowed(path: Path, name: str) -> None:
    path.write_text(f'{name} = ["somebody-else"]')
    with pytest.raises(PolicyRefusedError) as refused:
        policy_file(path).check(ask())
    assert "somebody-else" not in str(refused.value)


@pytest.mark.parametrize(
    "rule",
    [
        'publishers = ["ward", "desk-?"]',
        'subjects = ["*@ward-1"]',
        'purposes = ["maintenance"]',
        "lowest_block = 7",
        "max_blocks = 3",
        "max_bytes_per_query = 1000\nmax_bytes_per_hour = 1000\nmax_queries_per_hour = 1",
        'hours = "12:00-12:01"\ndays = ["mon"]',
        'hours = "23:00-12:01"\ndays = ["sun"]',
        'approval = "never"',
        'approval = ["audit"]',
    ],
)
def test_what_is_within_every_rule_is_admitted(path: Path, rule: str) -> None:
    path.write_text(rule)
    policy_file(path).check(ask())


def test_hours_into_the_next_day_belong_to_the_day_they_begin() -> None:
    policy = Policy(hours="22:00-06:00", days=("fri",))
    friday_night, saturday_morning, saturday_night, friday_morning = (
        datetime(2026, 12, day, hour) for day, hour in ((4, 23), (5, 5), (5, 23), (4, 5))
    )
    policy.check(ask(), friday_night)
    policy.check(ask(), saturday_morning)
    for moment in (saturday_night, friday_morning):
        with pytest.raises(PolicyRefusedError):
            policy.check(ask(), moment)


@pytest.mark.parametrize("num_rows", [1, 7, 96, 97, 1000, 8191])
@pytest.mark.parametrize("max_rows", [1, 3, 96, 1000])
def test_rows_are_capped_by_a_ratio_that_keeps_no_more(num_rows: int, max_rows: int) -> None:
    ratio = Policy(max_rows=max_rows).max_keep_ratio(num_rows)
    assert 0 < ratio <= 1
    kept = num_kept(num_rows, ratio)
    assert kept in ({num_rows} if num_rows <= max_rows else {max_rows, max_rows - 1, 1})
    assert kept <= max_rows


def test_rows_are_never_a_reason_to_refuse(path: Path) -> None:
    path.write_text("max_rows = 10")
    policy = policy_file(path)
    policy.check(ask(num_rows=96))
    assert policy.current().max_keep_ratio(40) == 0.25


@pytest.mark.parametrize(("given", "capped"), [("0", 0), ("60", 60), ("60.5", 60.5), ("9e9", 3600)])
def test_lifetime_can_only_be_shortened(path: Path, given: str, capped: float) -> None:
    path.write_text(f"cache_lifetime_s = {given}")
    assert policy_file(path).current().cap_lifetime(3600.0) == capped


def test_bytes_count_for_an_hour_as_admitted_and_then_as_sent(path: Path) -> None:
    path.write_text("max_bytes_per_hour = 1500")
    clock = Clock()
    policy = policy_file(path, clock)
    policy.check(ask(session_id="one"))
    policy.check(ask(session_id="one"))  # with its final sizes; still one
    with pytest.raises(PolicyRefusedError, match="1000 bytes after 1000 in the last hour"):
        policy.check(ask(session_id="two"))
    policy.note_sent(500, "one")
    policy.check(ask(session_id="two"))
    policy.note_sent(1000, "two")
    clock.seconds = 3599
    with pytest.raises(PolicyRefusedError, match="after 1500"):
        policy.check(ask(session_id="three"))
    clock.seconds = 3600
    policy.check(ask(session_id="three"))


def test_queries_count_once_each_and_a_reused_name_counts_anew(path: Path) -> None:
    path.write_text("max_queries_per_hour = 2")
    clock = Clock()
    policy = policy_file(path, clock)
    for _ in range(2):
        policy.check(ask())
        policy.check(ask())
        policy.note_sent(0, "s1")
    with pytest.raises(PolicyRefusedError, match="2 were in the last hour, allowed: 2"):
        policy.check(ask())
    clock.seconds = 3600
    policy.check(ask())


def test_refused_ask_counts_for_nothing(path: Path) -> None:
    path.write_text("max_queries_per_hour = 1\nmax_blocks = 3")
    policy = policy_file(path)
    with pytest.raises(PolicyRefusedError):
        policy.check(ask(layers=(1, 2, 3, 4)))
    policy.check(ask(session_id="s2"))


def test_changed_file_counts_from_the_next_ask_on(path: Path) -> None:
    path.write_text("max_blocks = 3")
    policy = policy_file(path)
    policy.check(ask())
    path.write_text("max_blocks = 2")  # as long, and perhaps as old
    with pytest.raises(PolicyRefusedError, match="max_blocks"):
        policy.check(ask())


@pytest.mark.parametrize("content", [b"max_blocks = 'three'", b"max_blocks =", b"\xff", None])
def test_broken_or_missing_file_refuses_everything_until_it_is_mended(
    path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text("max_blocks = 3")
    policy = policy_file(path)
    policy.check(ask())
    path.unlink() if content is None else path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(PolicyRefusedError, match="cannot be read, so it gives nothing"):
            policy.check(ask())
        with pytest.raises(PolicyRefusedError):
            policy.current().max_keep_ratio(10)
        with pytest.raises(PolicyRefusedError):
            policy.current()
    told = capsys.readouterr().out
    assert told.count("policy_unreadable") == 1
    assert str(path) in told
    path.write_text("max_blocks = 3")
    policy.check(ask())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("max_block = 3", "max_block: expected one of the keys publishers, .*got another"),
        ("max_rows = 0", "max_rows: expected a whole number from 1, got 0"),
        ("max_rows = 1.5", "max_rows: expected a whole number from 1, got 1.5"),
        ("max_rows = true", "max_rows: expected a whole number from 1, got True"),
        ('max_rows = "5"', "max_rows: expected a whole number from 1, got '5'"),
        ("lowest_block = -1", "lowest_block: expected a block.*got -1"),
        ('publishers = "desk"', "publishers: expected a list of node ids.*got 'desk'"),
        ("publishers = [1]", r"publishers.0: expected a list of node ids"),
        ('hours = "8-18"', "hours: expected hours such as .*, but '8-18' is no HH:MM-HH:MM"),
        ('hours = "08:00-24:01"', "hours: .*no time of a day"),
        ('hours = "24:00-08:00"', "hours: .*no time of a day"),
        ('hours = "08:00-08:00"', "hours: .*no length"),
        ('days = ["monday"]', "days: expected a list of some of mon,.*there is no day 'monday'"),
        ("days = []", "days: expected a list"),
        ('approval = "maybe"', r"approval.*: expected \"never\", \"always\", or a list"),
        ("cache_lifetime_s = -1", "cache_lifetime_s: expected a number of seconds"),
        ("cache_lifetime_s = inf", "cache_lifetime_s: expected a number of seconds"),
        ('withhold = ["mail"]', "withhold: expected a list of some of email,.*no pattern 'mail'"),
        ("[patterns]\nbadge = '('", "patterns: expected a table.*'badge' is no regular expression"),
        ("[patterns]\nbadge = 'x*'", "patterns: .*'badge' fits the empty text"),
        ("[patterns]\nemail = 'x'", "patterns: .*'email' is the name of a built-in one"),
        (f"[patterns]\nbadge = '{'x' * 1001}'", "patterns: .*1001 characters"),
        ("[patterns]\nmax_rows = 4", "patterns.max_rows: expected a table of names"),
        ("max_rows = ", "expected TOML"),
        (f"max_rows = {'9' * 5000}", "expected TOML, got: Exceeds the limit"),
        (f"publishers = {'[' * 5000}", "expected flat lists and tables"),
    ],
)
def test_error_is_one_line_with_file_key_expected_got_and_remedy(
    path: Path, content: str, words: str
) -> None:
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=words) as failed:
        check_policy(path)
    (line,) = str(failed.value).splitlines()
    assert line.startswith(f"policy {path}: ")
    assert line.endswith(("; docs/policy.md has every key", "; correct it"))


def test_example_of_the_document_is_a_policy_with_every_key() -> None:
    page = ROOT / "docs" / "policy.md"
    example = page.read_text().split("```")[1]
    policy = read_policy(page, example.encode())
    assert policy.model_fields_set == set(Policy.model_fields)


def test_file_that_is_not_there_or_too_large_is_named(path: Path) -> None:
    check_policy(None)
    with pytest.raises(ConfigurationError, match=r"policy\.toml: it cannot be read \(no such file"):
        check_policy(path)
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_policy(path)


def test_name_from_outside_stays_short_and_on_one_line(path: Path) -> None:
    path.write_text('subjects = ["nobody"]')
    with pytest.raises(PolicyRefusedError) as refused:
        policy_file(path).check(ask(subject="a\n\x1b[2J" + "x" * 1000))
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 300


def test_what_needs_approval_is_declined_where_nobody_can_approve(path: Path) -> None:
    path.write_text('approval = ["maintenance", "audit-*"]')
    policy = policy_file(path)
    policy.check(ask(purpose="care"))
    for purpose in ("maintenance", "audit-2026"):
        with pytest.raises(ApprovalNeededError, match="keeps no list of such asks"):
            policy.check(ask(purpose=purpose))
