"""What stands below the help of each command: examples; and below all, exit codes."""

from collections.abc import Mapping
from types import MappingProxyType

import typer

from fedattn.cli.failures import EXIT_CODES

EXAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ask": (
            'fedattn ask "Which ward had the outbreak?"',
            'fedattn ask "Which ward?" --gateway https://gateway.example:8000 --json',
        ),
        "nodes": ("fedattn nodes --watch", "fedattn nodes --gateway 10.0.0.5:8000 --json"),
        "doctor": (
            "fedattn doctor --gateway 10.0.0.5:8000",
            "fedattn doctor --node-id ward-1 --aggregator 10.0.0.5:50051 --certificates ward-1",
        ),
        "simulate": (
            "fedattn simulate --cases cases.jsonl --plan 7,9,10-12",
            "fedattn simulate --cases cases.jsonl --json -",
        ),
        "eval": (
            "fedattn eval retrieval --num-cases 20 --plan all --plan auto",
            "fedattn eval --codec int8 --codec bf16 --json found.json",
        ),
        "trace": ("fedattn trace --plan 7,9,10-12", "fedattn trace --json trace.json"),
        "leak": ("fedattn leak notes.txt --attack lookup", "fedattn leak notes.txt --json -"),
        "calibrate": (
            "fedattn calibrate --out profile.json",
            "fedattn calibrate --model Qwen/Qwen2.5-0.5B-Instruct --out found.json --texts notes",
        ),
        "cost": (
            "fedattn cost --contexts 200,300,150",
            "fedattn cost --contexts 200,300 --codec int8 --json",
        ),
        "audit": ("fedattn audit state/audit.jsonl", "fedattn audit state/audit.jsonl --json"),
        "demo": ("fedattn demo",),
        "up": (
            "fedattn up --context notes/a --context notes/b --context c.csv",
            "fedattn up --file federation.toml",
        ),
        "mcp": (
            "fedattn mcp --gateway http://10.0.0.5:8000",
            "fedattn mcp --http 127.0.0.1:8475",
        ),
        "version": ("fedattn version --json",),
        "model prepare": (
            "fedattn model prepare",
            "fedattn model prepare Qwen/Qwen2.5-0.5B-Instruct",
        ),
        "certs init": ("fedattn certs init ward-1 desk --out certs",),
        "certs serve": ("fedattn certs serve --folder certs --listen 0.0.0.0:50443",),
        "certs token": ("fedattn certs token ward-1 --authority 10.0.0.5:50443",),
        "certs join": ("fedattn certs join - --out ward-1",),
        "certs revoke": ("fedattn certs revoke ward-1 --folder certs",),
        "certs list": ("fedattn certs list --json",),
        "keys create": ("fedattn keys create anna --queries-per-minute 10 --expires-days 90",),
        "keys list": ("fedattn keys list --json",),
        "keys revoke": ("fedattn keys revoke anna",),
        "keys import": (
            "fedattn keys import keys.json --nats tls://nats:4222 --certificates certs/gateway",
        ),
        "approvals": ("fedattn approvals", "fedattn approvals --state state --json"),
        "approvals approve": ("fedattn approvals approve 3f9a --uses 5",),
        "approvals deny": ("fedattn approvals deny 3f9a",),
        "approvals serve": ("fedattn approvals serve --listen 127.0.0.1:8090",),
        "passages show": ("fedattn passages show 12 13",),
        "passages search": ('fedattn passages search "seal of the pump" --texts notes',),
        "passages list": ("fedattn passages list --newest --limit 5",),
    }
)
"""Command -> lines that could be typed; docs/command-line.md has them too."""


def add_epilogs(app: typer.Typer) -> None:
    """Put examples below the help of every command, and exit codes below that of all."""
    app.info.epilog = "\n\n".join(
        ("Exit codes:", *(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items()))
    )
    _add(app, "")


def _add(app: typer.Typer, path: str) -> None:
    for command in app.registered_commands:
        command.epilog = epilog_of(f"{path}{command.name}")
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        inner.info.epilog = epilog_of(f"{path}{group.name}")
        _add(inner, f"{path}{group.name} ")


def epilog_of(command: str) -> str | None:
    """Its examples; None if it has none."""
    lines = EXAMPLES.get(command, ())
    return "\n\n".join(("Examples:", *lines)) if lines else None
