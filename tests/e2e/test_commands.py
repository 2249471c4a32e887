"""The commands of the command line, as a user types them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.harness.forks import run_cli

CASES = [
    {"contexts": ["The code is 17.", "The door is red."], "question": "Code?", "answer": "17"},
    {"contexts": ["", "The sky is blue."], "question": "Sky?", "answer": "blue"},
]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(case) + "\n" for case in CASES))
    return path


def simulate(cases: Path, folder: Path, *flags: str) -> dict[str, object]:
    out = cases.with_suffix(".out.json")
    ended = run_cli(
        "simulate", f"--cases={cases}", f"--model={folder}", f"--json={out}", "--tokens", *flags
    )
    assert ended.returncode == 0, ended.stderr
    result: dict[str, object] = json.loads(out.read_text())
    return result


def test_simulate_with_all_layers_equals_plain_transformers(cases: Path, tiny_folder: Path) -> None:
    result = simulate(cases, tiny_folder, "--plan=all", "--codec=fp32")
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    for case in result["cases"]:  # type: ignore[attr-defined]
        prompt, answer = case["token_ids"], case["answer_ids"]
        with torch.inference_mode():
            logits = plain(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
        assert case["nll"] == pytest.approx(float(nll), abs=1e-4)
        assert case["spans"][0]["start"] == case["prefix_len"]
        assert case["spans"][-1]["stop"] == len(prompt)


def test_simulate_without_layers_moves_nothing(cases: Path, tiny_folder: Path) -> None:
    result = simulate(cases, tiny_folder, "--plan=none")
    assert result["kv_bytes"] == 0
    assert {"exact_match", "nll", "kv_bytes", "cases"} == result.keys()


def test_simulate_takes_a_plan_for_each_role(cases: Path, tiny_folder: Path) -> None:
    result = simulate(cases, tiny_folder, "--plan=none", "--publisher-plan=1,3")
    layers = [span["sync_layers"] for span in result["cases"][0]["spans"]]  # type: ignore[index]
    assert layers == [[], [], [1, 3]]


def test_simulate_compresses_as_it_is_told(cases: Path, tiny_folder: Path) -> None:
    full = simulate(cases, tiny_folder, "--plan=all", "--codec=bf16")
    flags = ("--plan=all", "--codec=bf16", "--keep-ratio=0.5", "--selector=random")
    half = simulate(cases, tiny_folder, *flags, "--seed=1")
    assert half["kv_bytes"] < 0.7 * full["kv_bytes"]  # type: ignore[operator]
    assert half == simulate(cases, tiny_folder, *flags, "--seed=1")
    assert half != simulate(cases, tiny_folder, *flags, "--seed=2")
    fewer = simulate(cases, tiny_folder, *flags, "--input-keep-ratio=0.5")
    span = fewer["cases"][0]["spans"][0]  # type: ignore[index]
    assert 2 * len(span["input_positions"]) <= span["stop"] - span["start"]
    assert set().union(*span["kept_positions"]["1"]) <= set(span["input_positions"])


def test_cost_foretells_the_bytes_that_simulate_counts(cases: Path, tiny_folder: Path) -> None:
    counted = simulate(cases, tiny_folder, "--plan=1,3", "--codec=int8", "--keep-ratio=0.5")
    case = counted["cases"][0]  # type: ignore[index]
    lengths = [span["stop"] - span["start"] for span in case["spans"]]
    ended = run_cli(
        "cost",
        f"--contexts={','.join(map(str, lengths[:-1]))}",
        f"--publisher-tokens={lengths[-1]}",
        f"--prefix-tokens={case['prefix_len']}",
        f"--model={tiny_folder}",
        "--plan=1,3",
        "--codec=int8",
        "--keep-ratio=0.5",
        "--json",
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["kv_bytes"] == case["kv_bytes"]


def test_cost_names_the_links_it_assumes_and_a_window_that_is_too_small(tiny_folder: Path) -> None:
    ended = run_cli(
        *("cost", f"--model={tiny_folder}", "--contexts=99999", "--link-rate-mbit-s=20"),
        *("--link-rtt-ms=40",),
    )
    assert ended.returncode == 0
    assert "over links of 20 Mbit/s and 40 ms rows take" in " ".join(ended.stdout.split())
    assert "tokens too many: texts, prefix, question and" in " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--contexts=12,many"], 1, "expected token counts separated by commas"),
        (["--contexts=99999999999"], 1, "expected at most 16777216 tokens"),
        (["--contexts=12", "--publisher-tokens=-1"], 2, "'--publisher-tokens': "),
        (["--contexts=12", "--keep-ratio=0"], 1, "keep_ratio must be above 0"),
    ],
)
def test_cost_refuses_bad_options_clearly(
    tiny_folder: Path, flags: list[str], code: int, words: str
) -> None:
    ended = run_cli("cost", f"--model={tiny_folder}", *flags)
    assert ended.returncode == code
    (line,) = ended.stderr.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--keep-ratio=1.5"], "invalid_request"),
        (["--selector=best"], "invalid_request"),
        (["--plan=often"], "invalid_plan"),
        (["--plan=7"], "invalid_plan"),
        (["--model=/nowhere"], "model"),
        (["--codec=zip"], "invalid_request"),
        (["--prefix=second"], "usage"),
        (["--independent", "--prefix=first"], "invalid_request"),
        (["--max-new-tokens=0"], "usage"),
        (["--max-new-tokens=2000"], "context_too_long"),
    ],
)
def test_simulate_refuses_bad_options_clearly(
    cases: Path, tiny_folder: Path, flags: list[str], code: str
) -> None:
    ended = run_cli("simulate", f"--cases={cases}", f"--model={tiny_folder}", *flags)
    assert ended.returncode == (2 if code == "usage" else 1)
    assert f"error [{code}]" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "empty file"),
        ("{", "line 1: no JSON"),
        ("[]", "expected an object"),
        ('{"contexts": "x", "question": "q", "answer": "a"}', "expected contexts"),
        ('{"contexts": [], "question": "q"}', "expected answer"),
    ],
)
def test_bad_cases_file_is_named_with_its_line(
    tmp_path: Path, tiny_folder: Path, line: str, words: str
) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(line)
    ended = run_cli("simulate", f"--cases={path}", f"--model={tiny_folder}")
    assert ended.returncode == 1
    assert words in ended.stderr


def test_model_prepare_of_the_embedded_model_changes_nothing_more() -> None:
    ended = run_cli("model", "prepare")
    assert ended.returncode == 0
    assert "is ready" in ended.stdout


def test_demo_is_right_together_and_wrong_alone() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fedattn.cli.main", "demo"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = {
        who: re.search(rf"^{who}.*(yes|no)\s*$", ended.stdout, re.MULTILINE)
        for who in ("the publisher alone", "together, no text shared", "one model with all texts")
    }
    verdicts = [row.group(1) if row else None for row in rows.values()]
    assert verdicts[:2] == ["no", "yes"], ended.stdout  # over whole texts the model may fail
    assert "none of 28 passages fits what is asked" in ended.stdout  # the cranes know nothing
    assert "all stopped" in ended.stdout
