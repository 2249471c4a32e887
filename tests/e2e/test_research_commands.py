"""calibrate, eval, trace and leak, as a user types them, on a tiny random Qwen2."""

import json
from pathlib import Path

import pytest

from fedattn.model.prepare import prepare_model
from tests.harness.forks import run_cli
from tests.harness.tiny import NUM_LAYERS, save_tiny_model


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-qwen2")
    save_tiny_model(folder, "qwen2")
    return prepare_model(str(folder), cache_dir=tmp_path_factory.mktemp("cache")).path


@pytest.fixture(scope="module")
def profile(qwen_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    (folder / "own.txt").write_text("The pump of hall 3 was repaired on May 12.\n\nNothing else.")
    out = folder / "found.json"
    ended = run_cli(
        "calibrate", f"--model={qwen_folder}", f"--out={out}", f"--texts={folder / 'own.txt'}",
        "--quick",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "auto: keep ratio" in ended.stdout
    return out


def test_calibrated_profile_is_accepted_where_a_plan_is(
    profile: Path, qwen_folder: Path, tmp_path: Path
) -> None:
    found = json.loads(profile.read_text())
    assert found["num_layers"] == NUM_LAYERS
    assert found["publisher"] == "1-4"
    assert "pump" not in profile.read_text()
    assert sorted(one.name for one in profile.parent.iterdir()) == ["found.json", "own.txt"]
    out = tmp_path / "results.json"
    ended = run_cli(
        "eval", "retrieval", f"--model={qwen_folder}", "--num-cases=2", f"--plan={profile}",
        "--plan=middle@2", "--codec=fp32", "--codec=int8", f"--json={out}",
        f"--plot={tmp_path / 'plot.png'}", "--max-new-tokens=4",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    setups = json.loads(out.read_text())["setups"]
    assert [setup["name"] for setup in setups][:2] == ["centralised", "publisher alone"]
    assert len(setups) == 6
    assert setups[2]["publisher"] == found["publisher"]
    assert setups[0]["divergence"] == 0 < setups[1]["divergence"]
    assert setups[1]["kv_bytes"] == 0 < setups[3]["kv_bytes"] < setups[2]["kv_bytes"]
    for suffix in (".png", ".svg"):
        assert (tmp_path / "plot").with_suffix(suffix).stat().st_size > 1000


def test_stopped_evaluation_goes_on_where_it_was(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    flags = ("eval", "retrieval", f"--model={qwen_folder}", "--num-cases=3", "--plan=all",
             "--length=80", "--length=60", "--questions=2", "--max-new-tokens=4",
             "--baseline=all", f"--json={out}")  # fmt: skip
    first = run_cli(*flags)
    assert first.returncode == 0, first.stderr
    assert "Minus all, case by case" in first.stdout
    whole = out.read_text()
    log = tmp_path / "results.cases.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:2], lines[2][:40]]))
    again = run_cli(*flags)
    assert again.returncode == 0, again.stderr
    assert "1 cases were done before" in again.stderr
    assert out.read_text() == whole


def test_every_participant_can_answer(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    flags = ("eval", "labels", f"--model={qwen_folder}", "--num-cases=1", "--plan=2",
             "--segmentation=sem-ag", "-n", "2", f"--json={out}")  # fmt: skip
    assert run_cli(*flags, "--responder=1", "--responder=2").returncode == 0
    names = [setup["name"] for setup in json.loads(out.read_text())["setups"]]
    assert names[2:] == ["2 responder 1", "2 responder 2"]
    refused = run_cli(*flags, "--responder=3")
    assert refused.returncode == 1
    assert "responder: expected 1 to 2" in refused.stderr


def test_network_evaluation_equals_the_one_in_this_process(
    qwen_folder: Path, tmp_path: Path
) -> None:
    texts, sizes = [], []
    for flags in ([], ["--network"]):
        out = tmp_path / f"{len(flags)}.json"
        ended = run_cli(
            "eval", "retrieval", f"--model={qwen_folder}", "--num-cases=2", "--num-contexts=2",
            "--plan=1-3", "--codec=int8", "--max-new-tokens=5", f"--json={out}", *flags,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        setups = json.loads(out.read_text())["setups"]
        texts.append([[case["text"].strip() for case in one["results"]] for one in setups])
        sizes.append([one["kv_bytes"] for one in setups])
    assert texts[0] == texts[1]
    assert sizes[0] == sizes[1]


def test_trace_shows_every_block_and_participant(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "trace.json"
    ended = run_cli(
        "trace", f"--model={qwen_folder}", "--num-cases=2", "--plan=2", f"--json={out}",
        f"--plot={tmp_path / 'trace.svg'}",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    participants = json.loads(out.read_text())["participants"]
    assert [len(one["errors"]) for one in participants] == [NUM_LAYERS] * 4
    assert max(participants[0]["errors"]) < 1e-5 < min(participants[3]["errors"])
    assert (tmp_path / "trace.svg").exists()


def test_leak_tells_what_each_attack_recovers(qwen_folder: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "note.txt", tmp_path / "leak.json"
    text.write_text("The code is 4417.")
    ended = run_cli(
        "leak", str(text), f"--model={qwen_folder}", "--plan=0,2", "--codec=fp32",
        "--answers=1", f"--json={out}", f"--plot={tmp_path / 'leak.png'}",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    document = json.loads(out.read_text())
    found = {attack["attack"]: attack["found"] for attack in document["attacks"]}
    assert list(found) == ["lookup", "replay", "middle", "repeat"]
    assert found["lookup"] == found["replay"] == 1.0
    assert document["texts"][0]["outcomes"][1]["text"].strip() == "The code is 4417."
    assert document["answers"]["num_cases"] == 1
    assert "100%" in ended.stdout
    assert (tmp_path / "leak.svg").exists()


def test_leak_attacks_what_is_only_asked(qwen_folder: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "note.txt", tmp_path / "leak.json"
    text.write_text("Code 4417.")
    flags = (f"--model={qwen_folder}", "--plan=1", "--exchange=ask")
    ended = run_cli(
        "leak", str(text), *flags, "--query-tokens=40", "--answers=1", f"--json={out}"
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    document = json.loads(out.read_text())
    found = {attack["attack"]: attack["found"] for attack in document["attacks"]}
    assert list(found) == ["overheard", "chosen"]
    assert found["chosen"] > 0.5
    assert document["texts"][0]["outcomes"][1]["query_tokens"] == 40
    assert document["answers"]["num_cases"] == 1
    refused = run_cli("leak", str(text), *flags, "--query-length=1000")
    assert "queries of the publisher at block 1: head" in refused.stderr
    unfit = run_cli("leak", str(text), *flags, "--attack=replay")
    assert "unknown attack 'replay'; use one of overheard, chosen" in unfit.stderr


def test_leak_guesses_what_is_withheld(qwen_folder: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "note.txt", tmp_path / "leak.json"
    text.write_text("The code is 4417.")
    ended = run_cli(
        "leak", str(text), f"--model={qwen_folder}", "--plan=1", "--codec=fp32",
        r"--withheld=(?<=44)\d+", "--candidates=9", f"--json={out}",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "withheld: the truth came first in 1 of 1; ranks 1; by distance alone 1" in ended.stdout
    outcomes = {one["attack"]: one for one in json.loads(out.read_text())["texts"][0]["outcomes"]}
    assert list(outcomes) == ["replay", "middle", "withheld"]
    assert outcomes["withheld"]["text"] == "17"
    assert outcomes["withheld"]["guesses"][0]["candidates"] == 100
    assert len(outcomes["replay"]["gaps"]) == outcomes["replay"]["tokens"] - 2


def test_leak_says_that_a_look_up_needs_block_0(qwen_folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "note.txt"
    text.write_text("The code is 4417.")
    flags = (f"--model={qwen_folder}", "--plan=2", "--attack=lookup")
    ended = run_cli("leak", str(text), *flags)
    assert ended.returncode == 0, ended.stderr
    assert "lookup: not applicable, block 0 does not travel" in ended.stdout
    refused = run_cli("leak", str(text), *flags, "--plan=none")
    assert refused.returncode == 1
    assert "no rows travel with this plan" in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["calibrate", "--out=x.txt"], "expected a .json file"),
        (["calibrate", "--out=x.json", "--texts=none"], "--texts none: no such file or folder"),
        (["eval", "poetry"], "unknown task 'poetry'"),
        (["eval", "gsm8k", "--length=200"], "--length is of generated retrieval cases"),
        (["eval", "--segmentation=half"], "'half' is not one of 'tok-ag'"),
        (["eval", "labels", "--shots=99"], "shots: expected 1 to 18, got 99"),
        (["eval", "--json=/nowhere/x.json"], "--json /nowhere/x.json: no such folder"),
        (["trace", "--plot=/nowhere/x.png"], "--plot /nowhere/x.png: no such folder"),
        (["leak", "none.txt"], "text none.txt cannot be read"),
        (["leak", "/dev/null"], "text /dev/null: expected some text, got an empty file"),
        (["leak", "README.md", "--noise=-1"], "noise must be between 0 and 100, got -1.0"),
        (["leak", "README.md", "--attack=guess"], "unknown attack 'guess'; use one of lookup"),
        (["leak", "README.md", "--keep-ratio=2"], "keep_ratio must be above 0 and at most 1"),
        (["leak", "README.md", "--plot=/nowhere/x.png"], "--plot /nowhere/x.png: no such folder"),
        (["leak", "README.md", "--enough=2"], "less than or equal to 1"),
        (["leak", "README.md", "--attack=withheld"], "'withheld' goes only with --withheld"),
        (
            ["leak", "README.md", "--attack=repeat", "--withheld=x"],
            "'repeat' goes not together with --withheld",
        ),
        (["leak", "README.md", "--withheld=("], "'(' is no regular expression"),
        (["eval", "labels", "--network"], "--network runs whole contexts"),
        (["eval", "--plan=none.json"], "profile none.json cannot be read"),
        (["eval", "gsm8k", "--cases=none.jsonl"], "problems none.jsonl cannot be read"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    command: list[str], message: str, qwen_folder: Path
) -> None:
    ended = run_cli(*command, f"--model={qwen_folder}")
    assert ended.returncode in {1, 2}
    assert message in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
