"""What runs where only some extras are installed, and what the rest says."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fedattn.runtime.extras import EXTRAS

BLOCKED = ("torch", "transformers", "tokenizers", "safetensors")


def run_without(names: tuple[str, ...], program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in which importing any of `names` fails, as where they are not installed."""
    block = f"import sys\nfor name in {names!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", ["services.aggregator.__main__", "gateway.__main__"])
def test_service_imports_no_model_library(module: str) -> None:
    ended = run_without(BLOCKED, f"import importlib; importlib.import_module({module!r})")
    assert ended.returncode == 0, ended.stderr


def test_participant_says_which_extra_it_needs() -> None:
    program = (
        "sys.argv = ['participant', '--node-id=a', '--plaintext']\n"
        "from services.participant.__main__ import main\n"
        "sys.exit(main())\n"
    )
    ended = run_without(BLOCKED, program)
    assert ended.returncode == 2
    assert "pip install 'fedattn[participant]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("services.aggregator", "services", "services"),
        ("services.participant", "services", "participant"),
        ("gateway", "services", "gateway"),
        ("gateway", "gateway", "gateway"),
    ],
)
def test_service_says_in_one_line_which_extra_it_needs(
    module: str, missing: str, extra: str
) -> None:
    program = f"import runpy; runpy.run_module({module!r}, run_name='__main__')"
    ended = run_without(EXTRAS[missing], program)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error [configuration]: ")
    assert line.endswith(f": not installed; install with: pip install 'fedattn[{extra}]'")


CLIENT, GATEWAY, PARTICIPANT = EXTRAS["client"], EXTRAS["gateway"], ("torch", "transformers")


@pytest.mark.parametrize(
    ("missing", "command", "extras"),
    [
        (CLIENT, ["--help"], "client"),
        (CLIENT, ["ask", "why?"], "client"),
        (PARTICIPANT, ["model", "prepare"], "participant"),
        (PARTICIPANT, ["simulate", "--cases=x"], "participant"),
        (PARTICIPANT, ["eval"], "participant"),
        (PARTICIPANT, ["trace"], "participant"),
        (PARTICIPANT, ["leak", "x"], "participant"),
        (PARTICIPANT, ["calibrate", "--out=x.json"], "participant"),
        (PARTICIPANT, ["cost", "--contexts=1"], "participant"),
        (PARTICIPANT, ["demo"], "participant"),
        (PARTICIPANT, ["up"], "participant"),
        ((*PARTICIPANT, *GATEWAY), ["up"], "gateway,participant"),
        (GATEWAY, ["demo"], "gateway"),
        (GATEWAY, ["approvals", "serve"], "gateway"),
        (GATEWAY, ["eval", "--network"], "gateway"),
        (("matplotlib",), ["eval", "--plot=x.png"], "plots"),
        (("matplotlib",), ["trace", "--plot=x.png"], "plots"),
        (("matplotlib",), ["leak", "x", "--plot=x.png"], "plots"),
        (GATEWAY, ["certs", "serve", "--listen=127.0.0.1:0"], "gateway"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_says_in_one_line_which_extra_it_needs(
    missing: tuple[str, ...], command: list[str], extras: str
) -> None:
    program = f"from fedattn.cli.main import main; sys.argv[1:] = {command!r}; main()"
    ended = run_without(missing, program)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error [configuration]: ")
    assert line.endswith(f"pip install 'fedattn[{extras}]'")


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["cost", "--help"]])
def test_help_needs_the_client_alone(command: list[str]) -> None:
    others = [name for extra, names in EXTRAS.items() if extra != "client" for name in names]
    program = f"from fedattn.cli.main import main; sys.argv[1:] = {command!r}; main()"
    ended = run_without(tuple(others), program)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


def test_the_python_client_needs_no_extra() -> None:
    names = tuple(name for extra in EXTRAS.values() for name in extra if name != "h11")  # httpx's
    ended = run_without(names, "from fedattn.client import AsyncClient, Client; Client().close()")
    assert ended.returncode == 0, ended.stderr


MODULES = {
    "grpcio": "grpc",
    "opentelemetry_exporter_otlp_proto_http": "opentelemetry",
    "opentelemetry_sdk": "opentelemetry",
    "grpcio_health_checking": "grpc_health",
    "grpcio_reflection": "grpc_reflection",
    "protobuf": "google",
    "nats_py": "nats",
    "pyjwt": "jwt",
    "python_docx": "docx",
}
"""Distributions whose module has another name."""


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    declared = {
        extra: {
            MODULES.get(name, name)
            for requirement in requirements
            for name in [re.split(r"[^\w-]", requirement)[0].replace("-", "_")]
            if not requirement.startswith("fedattn[") and ";" not in requirement  # not everywhere
        }
        for extra, requirements in project["optional-dependencies"].items()
    }
    assert {extra: set(names) for extra, names in EXTRAS.items()} == {
        extra: declared[extra] for extra in EXTRAS
    }
    assert declared.keys() - EXTRAS.keys() == {"dev"}
