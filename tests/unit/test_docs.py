"""The documents name only what exists: code, files, commands, options, settings, error codes."""

from pathlib import Path

import pytest

from tests.harness.codebase import ROOT
from tests.harness.documents import broken_links, misplaced, problems, wrong_statuses
from tests.harness.identifiers import docstrings

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "README.md",
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_document_names_only_what_exists(path: Path) -> None:
    assert problems(path.read_text()) == []


def test_docstrings_name_only_what_exists() -> None:
    found = [
        f"{path}: {problem}" for path, docstring in docstrings() for problem in problems(docstring)
    ]
    assert found == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_error_codes_have_the_status_that_is_told(path: Path) -> None:
    assert wrong_statuses(path.read_text()) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_names_are_in_the_files_that_are_told(path: Path) -> None:
    assert misplaced(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`BorderInterceptor` ends the RPC", "there is no BorderInterceptor"),
        ("a place is taken with `try_enter`", "there is no try_enter"),
        ("`Session.send_along` puts it there", "there is no Session.send_along"),
        ("`Heartbeat.mood` says so", "there is no Heartbeat.mood"),
        ("see `gateway/border.py`", "there is no gateway/border.py"),
        ("see `core/knots.py`", "there is no core/knots.py"),
        ("tests in `tests/nowhere/`", "there is no tests/nowhere/"),
        ("code `node_sleepy`", "there is no node_sleepy"),
        ("numbers `fedattn_yawns_total`", "there is no fedattn_yawns_total"),
        ("codec `entropy-hasty`", "there is no entropy-hasty"),
        ("set `FEDATTN_GATEWAY_MOOD`", "nothing reads FEDATTN_GATEWAY_MOOD"),
        ("give `--mood`", "no option --mood"),
        ("run `make coffee`", "the Makefile has no coffee"),
        ("run `fedattn question`", "fedattn has no command question"),
        ("run `fedattn model bake`", "fedattn has no command bake"),
        ("run `fedattn ask --mood good`", "no option --mood"),
        ("`python -m benchmarks.coffee` does it", "no module benchmarks.coffee"),
        ("`POST /v1/coffee` does it", "the gateway has no route /v1/coffee"),
        ("```\nmake coffee\n```", "the Makefile has no coffee"),
        ("```\n.venv/bin/fedattn question x\n```", "fedattn has no command question"),
        ("```\nfedattn ask\n```", "Missing argument"),
        ("```\nfedattn ask x --mood good\n```", "--mood"),
        ("```\nfedattn cost --contexts 1 --publisher-tokens many\n```", "many"),
        ("```\npython -m gateway --mood good\n```", "no option --mood"),
        ("```\npython -m benchmarks.session --mood good\n```", "no option --mood"),
        ("```\nsudo deploy/edge/install.sh --mood good\n```", "no option --mood"),
        ("```\ncurl -s http://h:1/v1/queries -d '{\"mood\": 1}'\n```", "no field mood"),
        ("```\ncurl -s http://h:1/v1/coffee\n```", "the gateway has no route /v1/coffee"),
    ],
)
def test_what_does_not_exist_is_found(text: str, problem: str) -> None:
    assert problem in "\n".join(problems(text))


def test_moved_class_and_wrong_status_and_dead_link_are_found(tmp_path: Path) -> None:
    assert misplaced("`Session` (`services/aggregator/registry.py`)") != []
    assert wrong_statuses("404 `node_busy`") != []
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](#one) [b](#two) [c](gone.md) [d](page.md#one)")
    assert broken_links(page) == ["#two", "gone.md"]
