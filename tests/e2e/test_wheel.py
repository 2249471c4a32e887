"""The wheel, installed into an empty environment with what the locks name."""

import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

import fedattn
from tests.harness.codebase import ROOT
from tests.harness.locks import read_lock


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments], capture_output=True, text=True, check=False
    )


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools leaves files where it builds
    for package in ("fedattn", "gateway", "services"):
        shutil.copytree(ROOT / package, source / package)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = run(*PIP, "wheel", "--no-deps", "--wheel-dir", folder, source)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("fedattn-*.whl")
    return wheel


def install(folder: Path, wheel: Path, *locks: str) -> Path:
    """A new environment that holds the wheel and what these locks name; its Python.

    What they name is linked from here, where `make setup` installed the same files by their hashes.
    """
    assert run(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    for pin in [pin for lock in locks for pin in read_lock(lock).values()]:
        if pin.marker is None or pin.marker.evaluate():
            link_files(pin.name, site)
    installed = run(*PIP, "--python", python, "install", "--no-compile", "--no-deps", wheel)
    assert installed.returncode == 0, installed.stderr
    return python


def link_files(distribution: str, site: Path) -> None:
    for file in files(distribution) or []:
        if ".." not in file.parts:  # a command, which lies elsewhere
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).symlink_to(file.locate())


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, its gateway and its client."""
    return install(tmp_path_factory.mktemp("env"), wheel, "build", "gateway")


def test_version_is_the_one_of_the_package(python: Path) -> None:
    for words in ("version", "--version"):
        assert run(python.with_name("fedattn"), words).stdout.strip() == fedattn.__version__
    assert f"## [{fedattn.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_data_files_and_generated_code_are_in_the_wheel(python: Path) -> None:
    program = (
        "from importlib.resources import files; import fedattn, fedattn.wire.v1.session_pb2;"
        "print(len(list(files('fedattn.profiles').glob('*.json'))),"
        "len(list((files('fedattn.cli') / 'demo_contexts').glob('*/*'))),"
        "*((files(name) / page).is_file() for name, page in ("
        "('gateway', 'page/index.html'), ('fedattn.cli', 'owner_page/index.html'),"
        "('fedattn.page', 'assets/look.css'), ('fedattn.page', 'assets/uplot/LICENSE'))))"
    )
    ended = run(python, "-I", "-c", program)
    assert ended.stdout.split() == ["1", "9", *["True"] * 4], ended.stderr


@pytest.mark.parametrize("module", ["services.aggregator", "gateway"])
def test_services_without_a_model_start_from_the_wheel(python: Path, module: str) -> None:
    ended = run(python, "-I", "-m", module, "--help")
    assert ended.returncode == 0, ended.stderr
    assert "--certificates" in ended.stdout


def test_certificates_are_made_from_the_wheel(python: Path, tmp_path: Path) -> None:
    ended = run(python.with_name("fedattn"), "certs", "init", "a", f"--out={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "a" / "tls.key").exists()


def test_participant_names_the_extra_it_needs(python: Path) -> None:
    ended = run(python, "-I", "-m", "services.participant", "--node-id=a")
    assert ended.returncode == 2
    assert "pip install 'fedattn[participant]'" in ended.stderr


@pytest.mark.parametrize(
    "command",
    [["cost", "--contexts=1"], ["simulate", "--cases=x"], ["model", "prepare"], ["up"], ["demo"]],
    ids=" ".join,
)
def test_command_that_needs_a_model_names_the_extra(python: Path, command: list[str]) -> None:
    ended = run(python.with_name("fedattn"), *command)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.endswith("pip install 'fedattn[participant]'")


def test_command_without_its_client_names_the_extra(wheel: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "bare", wheel)
    ended = run(python.with_name("fedattn"), "--help")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.endswith("pip install 'fedattn[client]'")
