"""The README's first own query, command by command, on a tiny model and free ports."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from fedattn.cli.network import LocalNetwork, Part, local_network
from tests.harness.codebase import ROOT


def steps() -> list[str]:
    """The commands of the section, in order."""
    section = (ROOT / "README.md").read_text().partition("\n## Your own texts")[2]
    blocks = re.findall(r"```\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def on_free_ports(commands: list[str], network: LocalNetwork) -> list[str]:
    """The same commands, where nothing else on this machine listens."""
    ports = {
        "50051": str(network.aggregator_address.port),
        "8000": str(network.gateway_address.port),
    }
    pattern = re.compile("|".join(ports))
    return [pattern.sub(lambda found: ports[found.group()], command) for command in commands]


def start(network: LocalNetwork, command: str, folder: Path, model: Path) -> None:
    """Start a service of the README, on the tiny model and the network's ports."""
    module = shlex.split(command)[2]
    extra = {
        "services.aggregator": [f"--listen={network.aggregator_address}"],
        "services.participant": [f"--aggregator={network.aggregator_address}", f"--model={model}"],
        "gateway": [
            f"--listen={network.gateway_address}",
            f"--aggregator={network.aggregator_address}",
        ],
    }[module]
    found = re.search(r"--node-id (\S+)", command)
    name = found.group(1) if found else module
    log_path = network.log_dir / f"{name}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *shlex.split(command)[1:], *extra],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    network.parts[name] = Part(name, process, log_path)


def run(command: str, folder: Path, gateway: str) -> str:
    """Run a command of the README to its end."""
    fedattn = f"{shlex.quote(sys.executable)} -m fedattn.cli.main"
    ended = subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/fedattn", fedattn)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FEDATTN_GATEWAY": gateway, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}"
    return ended.stdout


def test_first_own_query_works_as_the_readme_tells(tmp_path: Path, tiny_folder: Path) -> None:
    with local_network() as network:
        outputs = []
        for command in on_free_ports(steps(), network):
            if " -m " in command:
                start(network, command, tmp_path, tiny_folder)
            else:
                if command.startswith("curl"):
                    list(network.wait_ready(["workshop", "storeroom", "desk"]))
                outputs.append(run(command, tmp_path, network.gateway_url))
        *_, listed, answered = outputs
    assert '"workshop"' in listed
    assert re.search(r"workshop +contributor +complete", answered), answered
    assert re.search(r"storeroom +contributor +complete", answered), answered
