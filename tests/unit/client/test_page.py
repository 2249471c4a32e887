"""The programs on the page about the client run as they stand there."""

import re

import pytest

from tests.harness.answers import sample_answer
from tests.harness.codebase import ROOT
from tests.unit.client.gateways import Said, answering, events

PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/client.md").read_text(), re.DOTALL)
ANSWER = Said(content=events(("report", sample_answer().model_dump_json())))


@pytest.mark.parametrize("program", [one for one in PROGRAMS if "submit" not in one])
def test_program_of_the_page_prints_the_answer(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(ANSWER) as gateway:
        monkeypatch.setenv("FEDATTN_GATEWAY", gateway.url)
        exec(program.replace('"http://127.0.0.1:8000"', ""), {"__name__": "__main__"})
    assert sample_answer().answer in capsys.readouterr().out
