"""`fedattn up`: a whole network on this machine over own texts, until Ctrl-C."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fedattn.cli.demo import demo_federation
from fedattn.cli.federation import DESK, MAX_NODES, Federation, NodeTable
from fedattn.cli.federation_file import FILE_NAME, read_federation
from fedattn.cli.signals import set_on_signals
from fedattn.cli.terminal import PlainConsole, output
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.runtime.extras import require_extras
from fedattn.runtime.listening import find_free

_LOOK_S = 0.5
_DEFAULT_PORT = 8000


def up(
    context: Annotated[
        list[Path] | None,
        typer.Option(help="A file or folder of texts: a node each. Give it as often as needed."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help=f"A whole network in TOML; default: {FILE_NAME} if it is in this folder and no "
            f"--context is given, else the demo's texts.",
            metavar="FILE",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the gateway, 0 for any that is free; default: 8000."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Of every node: default, a folder, a .gguf file or a hub id."),
    ] = None,
) -> None:
    """Start a network over your own texts on this machine, and keep it until Ctrl-C."""
    require_extras("gateway", "participant")
    from fedattn.cli.local_start import started
    from fedattn.cli.start_summary import show_start

    console = output()
    with _chosen(context or [], file, console) as described:
        federation = _changed(described, port, model)
        _check_start(federation)
        stopping = threading.Event()
        set_on_signals(stopping)
        with started(federation, console) as running:
            if running.wait_ready(stopping):
                show_start(running, federation)
            while not stopping.wait(_LOOK_S):
                running.tell()
                running.say_who_ended()
            console.print("stopping")
    console.print("all stopped")


@contextmanager
def _chosen(contexts: list[Path], file: Path | None, console: PlainConsole) -> Iterator[Federation]:
    """What is to be started.

    Raises:
        InvalidRequestError: both texts and a file are given, or a text twice or that is not there.
        ConfigurationError: the file is of no use.
    """
    if contexts and file is not None:
        raise InvalidRequestError(
            f"--context and --file {file}: expected one of them; write the texts into the file as "
            f"[[node]] tables"
        )
    if contexts:
        yield _of_contexts(contexts)
    elif file is not None or Path(FILE_NAME).exists():
        path = file or Path(FILE_NAME)
        federation = read_federation(path)
        console.print(f"as {path} says", soft_wrap=True)
        yield federation
    else:
        console.print(f"no --context, and no {FILE_NAME} here: with the texts of the demo")
        with demo_federation(DESK, _DEFAULT_PORT) as federation:
            yield federation


def _of_contexts(contexts: list[Path]) -> Federation:
    places = [path.resolve() for path in contexts]
    for path, place in zip(contexts, places, strict=True):
        if not path.exists():
            raise InvalidRequestError(f"--context {path}: no such file or folder")
        if places.count(place) > 1:
            raise InvalidRequestError(f"--context {path}: given twice; expected a text a node")
    if len(contexts) > MAX_NODES:
        raise InvalidRequestError(
            f"--context: expected at most {MAX_NODES}, got {len(contexts)}; put texts of one owner "
            f"into one folder"
        )
    return Federation(node=[NodeTable(context=path) for path in contexts])


def _changed(federation: Federation, port: int | None, model: str | None) -> Federation:
    """What the command line says counts more than the file."""
    changes: dict[str, object] = {}
    if port is not None:
        changes["gateway"] = federation.gateway.model_copy(update={"port": port})
    if model is not None:
        changes["model"] = model
    return federation.model_copy(update=changes)


def _check_start(federation: Federation) -> None:
    """What would fail only after a while otherwise.

    Raises:
        ConfigurationError: the port is taken, or a policy says what it may not.
        ModelError: a model is none.
    """
    from fedattn.model.source import resolve_source
    from services.participant.policy import check_policy

    try:
        find_free(HostPort("127.0.0.1", federation.gateway.port))
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}: --port 0 takes any that is free") from None
    for node in federation.nodes():
        check_policy(node.policy)
    for model in {node.model or federation.model for node in federation.nodes()}:
        resolve_source(model)
