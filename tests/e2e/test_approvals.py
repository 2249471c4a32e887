"""The approvals of a node, served by a process of their own."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from fedattn.cli.network import free_port
from fedattn.core.consent import Ask
from fedattn.runtime.approvals import ApprovalStore, Decision

ASK = Ask(
    publisher="desk",
    subject="anna",
    purpose="audit",
    layers=(7,),
    num_rows=96,
    num_bytes=1000,
    session_id="s1",
)


@retry(
    retry=retry_if_exception_type(httpx.ConnectError),
    wait=wait_fixed(0.1),
    stop=stop_after_delay(60),
)
def get(url: str) -> httpx.Response:
    return httpx.get(url)


def test_dashboard_decides_for_another_process_and_stops_when_told(tmp_path: Path) -> None:
    store = ApprovalStore(tmp_path)
    store.use(ASK)
    url = f"http://127.0.0.1:{free_port()}"
    command = ["approvals", "serve", f"--listen={url[7:]}", f"--state={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fedattn.cli.main", *command], stderr=subprocess.PIPE
    )
    try:
        (entry,) = get(f"{url}/v1/approvals").json()
        answer = httpx.post(f"{url}/v1/approvals/{entry['id']}/approve")
        assert answer.status_code == 200
        used = store.use(ASK)
        assert used is not None
        assert used.decision is Decision.APPROVED
    finally:
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    assert b"Traceback" not in told
