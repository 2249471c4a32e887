"""`fedattn doctor`."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from fedattn.cli.options import ApiKey, AsJson, Authority
from fedattn.cli.terminal import PlainConsole, output, plain, plain_table, progress, write_json
from fedattn.client import Client

if TYPE_CHECKING:
    from fedattn.cli.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}


def doctor(
    env_file: Annotated[
        Path | None,
        typer.Option(
            help="Settings of the service; default: /etc/fedattn/node.env, if it is there and "
            "--node-id is not given.",
            metavar="FILE",
        ),
    ] = None,
    node_id: Annotated[str | None, typer.Option(help="Id of this node.")] = None,
    aggregator: Annotated[str | None, typer.Option(help="HOST:PORT of the aggregator.")] = None,
    certificates: Annotated[
        Path | None, typer.Option(help="Folder with ca.crt, tls.crt and tls.key.", metavar="DIR")
    ] = None,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="The node has none.")] = False,
    context: Annotated[
        Path | None, typer.Option(help="Private text: a file or a folder.", metavar="PATH")
    ] = None,
    context_encoding: Annotated[
        str | None, typer.Option(help="Of texts that are neither UTF-8 nor UTF-16.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="TOML file that says who gets what.", metavar="FILE")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="State folder of the node.", metavar="DIR")
    ] = None,
    model: Annotated[str | None, typer.Option(help="As for `model prepare`.")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Gateways may ask through the node.")
    ] = False,
    proxy: Annotated[str | None, typer.Option(help="http://HOST:PORT, none, or auto.")] = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            envvar="FEDATTN_GATEWAY", help="Of the gateway: HOST:PORT, or a URL; default: no look."
        ),
    ] = None,
    api_key: ApiKey = None,
    ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Examine this machine as a node, and say what to do.

    The settings are those that a participant would read here: options, then variables of the
    environment. Changes nothing, and prints no private text. Ends with 1 if there is a problem.
    """
    from fedattn.cli.doctor.examination import examine

    flags = {
        "node_id": node_id,
        "aggregator": aggregator,
        "certificates": certificates,
        "plaintext": "" if plaintext else None,
        "context": context,
        "context_encoding": context_encoding,
        "policy": policy,
        "state": state,
        "model": model,
        "publish": "" if publish else None,
        "proxy": proxy,
    }
    given = {name: str(value) for name, value in flags.items() if value is not None}
    with ExitStack() as stack:
        client = None
        if gateway is not None:
            client = stack.enter_context(Client(gateway, api_key, ca=ca, retries=0))
        with progress().status("examining"):
            found = list(examine(given, env_file, client))
    if as_json:
        write_json([finding.to_json() for finding in found])
    else:
        _show(found, output())
    if any(finding.state == "problem" for finding in found):
        raise typer.Exit(1)


def _show(findings: "list[Finding]", console: PlainConsole) -> None:
    """Print a line a finding, its remedy below it, and the sums."""
    table = plain_table("check", "state", "found")
    last = ""
    for finding in findings:
        text = Text(finding.found)
        if finding.remedy:
            text.append(f"\n-> {finding.remedy}", style=_STYLES[finding.state])
        name = "" if finding.check == last else finding.check
        table.add_row(name, plain(finding.state, _STYLES[finding.state]), text)
        last = finding.check
    console.print(table)
    counts = {state: sum(one.state == state for one in findings) for state in _STYLES}
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count))
