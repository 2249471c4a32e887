"""How a node that starts is followed by its log."""

import json
from pathlib import Path

import pytest

from fedattn.cli.log_lines import LogTail, readable
from fedattn.cli.node_watch import News, NodeWatch, describe_skipped
from fedattn.passages.store import PassageStore


@pytest.fixture
def watch(tmp_path: Path) -> NodeWatch:
    (tmp_path / "a.log").touch()
    log = LogTail(tmp_path / "a.log")
    return NodeWatch(node_id="a", log=log, index_path=tmp_path / "passages.db")


def write(watch: NodeWatch, *lines: str | dict[str, object]) -> None:
    with watch.log.path.open("a") as log:
        log.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)


def test_steps_from_the_model_to_the_network_are_told_once(watch: NodeWatch) -> None:
    write(
        watch,
        {"event": "model", "step": "loading default"},
        {"event": "reading_context", "is_given": True},
        {"event": "context_read", "files": 1, "passages": 40, "tokens": 1800},
        {"event": "joined", "node": "a"},
    )
    told = [news.text for news in watch.poll()]
    assert told == [
        *("loading default", "reading texts", "has read 1 file, 40 passages", "has joined")
    ]
    assert (watch.num_files, watch.num_passages, watch.num_tokens) == (1, 40, 1800)
    assert watch.has_joined
    assert watch.poll() == []


def test_files_left_out_and_empty_texts_are_warnings(watch: NodeWatch) -> None:
    watch.skipped["b.png"] = "unknown kind"  # which was told before the node started
    write(
        watch,
        {"event": "context_read", "files": 0, "passages": 0, "tokens": 0},
        {"event": "nothing_to_give", "why": "nothing to give: no files"},
        {"event": "file_skipped", "file": "b.png", "reason": "unknown kind"},
        {"event": "file_skipped", "file": "c.txt", "reason": "binary", "remedy": "rename it"},
    )
    assert watch.poll() == [
        News(text="nothing to give: no files", is_warning=True),
        News(text="c.txt is not read: binary; rename it", is_warning=True),
    ]


def test_a_policy_that_cannot_be_read_is_a_warning_until_it_is_read_again(watch: NodeWatch) -> None:
    write(
        watch,
        {"event": "policy_unreadable", "why": "policy a.toml: expected TOML"},
        {"event": "policy_read", "keys": ["publishers"]},
    )
    assert watch.poll() == [
        News(text="gives nothing to anyone: policy a.toml: expected TOML", is_warning=True),
        News(text="has read its policy"),
    ]


def test_lines_of_libraries_and_half_lines_wait_or_are_passed_over(watch: NodeWatch) -> None:
    write(watch, "a library speaks\n", "17\n", '{"event": "jo')
    assert watch.poll() == []
    write(watch, 'ined"}\n')
    assert watch.poll() == [News(text="has joined")]


def test_passages_are_counted_while_a_node_reads(watch: NodeWatch, tmp_path: Path) -> None:
    write(watch, {"event": "reading_context", "is_given": True})
    watch.poll()  # there is no index yet
    (tmp_path / "text.txt").write_text("The ship lies at pier 4.")
    store = PassageStore(tmp_path / "text.txt", watch.index_path)
    store.refresh()
    watch.poll()
    store.close()
    assert (watch.num_files, watch.num_passages) == (1, 1)


def test_a_few_files_are_named_by_reason_and_the_rest_counted() -> None:
    skipped = {"a.png": "unknown kind", "b.txt": "empty", "c.png": "unknown kind"}
    assert describe_skipped(skipped) == "a.png, c.png (unknown kind), b.txt (empty)"
    many = {f"{number}.png": "unknown kind" for number in range(9)}
    assert describe_skipped(many).endswith("3.png (unknown kind) and 5 more")
    assert describe_skipped({}) == ""


def test_json_lines_are_readable_and_others_stay() -> None:
    line = json.dumps({"event": "joined", "level": "info", "timestamp": "now", "node": "a"})
    assert readable(line) == "info joined node=a"
    assert readable("error [model]: gone") == "error [model]: gone"
