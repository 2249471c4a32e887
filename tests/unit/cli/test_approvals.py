"""`fedattn approvals`, typed and over HTTP."""

import json
from pathlib import Path

import httpx
import pytest

from fedattn.cli.approvals_api import create_app, read_token
from fedattn.cli.failures import run_command
from fedattn.cli.main import command_line
from fedattn.core.address import HostPort
from fedattn.core.consent import Ask
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.approvals import ApprovalStore, Decision
from fedattn.runtime.audit import AuditEvent, AuditLog
from fedattn.runtime.state import AUDIT_FILE

TOKEN = "0123456789abcdef"
LOCAL = HostPort("127.0.0.1", 8090)
ASK = Ask(
    publisher="desk",
    subject="anna",
    purpose="main\x1b[2Jtenance",
    layers=(7, 9),
    num_rows=96,
    num_bytes=1000,
    session_id="s1",
)


@pytest.fixture
def store(tmp_path: Path) -> ApprovalStore:
    return ApprovalStore(tmp_path)


@pytest.fixture
def approval_id(store: ApprovalStore) -> str:
    entry = store.use(ASK)
    assert entry is not None
    return entry.id


def run(*arguments: str) -> int:
    words = ["approvals", *arguments]
    return run_command(lambda: command_line()(words, prog_name="fedattn", standalone_mode=False))


def client(
    store: ApprovalStore, token: str | None = None, host: str = "127.0.0.1:8090"
) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=create_app(store, LOCAL, token))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


def test_list_approve_and_deny(
    store: ApprovalStore, approval_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = f"--state={store.folder}"
    assert run(state) == 0
    shown = capsys.readouterr().out
    assert approval_id in shown
    assert r"main\x1b[2Jtenance" in shown
    assert run("approve", approval_id, state, "--uses=3", "--lifetime-s=60") == 0
    assert "3 times until" in capsys.readouterr().out
    assert store.entries()[0].uses_left == 3
    assert run(state, "deny", approval_id) == 0
    assert store.entries()[0].decision is Decision.DENIED
    capsys.readouterr()
    assert run(state, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["decision"] == "denied"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["approve", "nobody"], "error [invalid_request]: no ask has the id 'nobody'"),
        (["approve", "nobody", "--uses=0"], "error [invalid_request]: expected 1 to 10000 uses"),
        (["serve", "--listen=0.0.0.0:8090"], "error [configuration]: --listen 0.0.0.0:8090: oth"),
        (["serve", "--listen=8090"], "error [configuration]: expected HOST:PORT"),
        (["serve", "--token-file=/none"], "error [configuration]: --token-file /none: expected"),
    ],
)
def test_mistake_is_one_line(
    store: ApprovalStore, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, f"--state={store.folder}") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)


def test_empty_list_says_so(store: ApprovalStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"--state={store.folder}") == 0
    assert "nothing waits" in capsys.readouterr().out


async def test_dashboard_lists_approves_and_denies(store: ApprovalStore, approval_id: str) -> None:
    async with client(store) as http:
        (entry,) = (await http.get("/v1/approvals")).json()
        assert (entry["id"], entry["decision"], entry["blocks"]) == (
            approval_id,
            "pending",
            [7, 9],
        )
        approved = await http.post(f"/v1/approvals/{approval_id}/approve?uses=2&lifetime_s=60")
        assert approved.status_code == 200
        assert approved.json()["uses_left"] == 2
        denied = await http.post(f"/v1/approvals/{approval_id}/deny")
        assert denied.json()["decision"] == "denied"
    assert store.entries()[0].decision is Decision.DENIED


async def test_dashboard_tells_mistakes_as_problems(store: ApprovalStore, approval_id: str) -> None:
    async with client(store) as http:
        unknown = await http.post("/v1/approvals/nobody/approve")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "invalid_request")
        wrong = await http.post(f"/v1/approvals/{approval_id}/approve?uses=0")
        assert wrong.status_code == 422
        assert "uses" in wrong.json()["detail"]
        assert (await http.get("/v1/approvals/x")).status_code == 404
        (store.folder / "approvals.json").write_bytes(b"x")
        broken = await http.get("/v1/approvals")
        assert (broken.status_code, broken.json()["code"]) == (500, "configuration")
        for answer in (unknown, wrong, broken):
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1:8090", {}, 200),
        ("localhost:1", {"Origin": "http://localhost:3000"}, 200),
        ("[::1]:8090", {}, 200),
        ("127.0.0.1:8090", {"Origin": "https://evil.example"}, 403),
        ("127.0.0.1:8090", {"Origin": "null"}, 403),
        ("127.0.0.1:8090", {"Origin": "http://[::"}, 403),
        ("evil.example:8090", {}, 403),
        ("127.0.0.1.evil.example", {}, 403),
    ],
)
async def test_without_a_token_no_web_page_from_elsewhere_decides(
    store: ApprovalStore, approval_id: str, host: str, headers: dict[str, str], status: int
) -> None:
    async with client(store, host=host) as http:
        answer = await http.post(f"/v1/approvals/{approval_id}/approve", headers=headers)
    assert answer.status_code == status
    expected = Decision.APPROVED if status == 200 else Decision.PENDING
    assert store.entries()[0].decision is expected


async def test_the_audit_log_is_read_by_the_same_callers_only(store: ApprovalStore) -> None:
    async with client(store) as http:
        empty = (await http.get("/v1/audit")).json()
        assert (empty["entries"], empty["num_entries"], empty["broken_line"]) == ([], 0, None)
        log = AuditLog(store.folder / AUDIT_FILE)
        heads = [log.append(AuditEvent(event=name)) for name in ("asked", "allowed", "sent")]
        log.close()
        audit = (await http.get("/v1/audit?last=2")).json()
        assert [entry["event"] for entry in audit["entries"]] == ["allowed", "sent"]
        assert (audit["num_entries"], audit["head"]) == (3, heads[-1])
    async with client(store, host="evil.example") as http:
        assert (await http.get("/v1/audit")).status_code == 403
        assert (await http.get("/")).status_code == 200
    async with client(store, TOKEN) as http:
        assert (await http.get("/v1/audit")).status_code == 401


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer", 401),
        (f"Basic {TOKEN}", 401),
        (None, 401),
    ],
)
async def test_token_decides_where_there_is_one(
    store: ApprovalStore, header: str | None, status: int
) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with client(store, TOKEN, "node.example") as http:
        answer = await http.get("/v1/approvals", headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.headers["www-authenticate"] == "Bearer"


def test_others_are_let_in_only_with_a_token(store: ApprovalStore, tmp_path: Path) -> None:
    everywhere = HostPort("0.0.0.0", 8090)
    with pytest.raises(ConfigurationError, match="give --token-file"):
        create_app(store, everywhere, None)
    create_app(store, everywhere, TOKEN)
    assert read_token(None) is None
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN
    path.write_text("short")
    with pytest.raises(ConfigurationError, match="expected 16 characters or more, got 5"):
        read_token(path)
