"""The `fedattn` command: which commands there are. Each imports what it needs when it runs."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from fedattn.cli.failures import check_arguments, run_command
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Entry point; never ends in a traceback."""
    sys.exit(run_command(_run))


def _run() -> int:
    check_arguments(sys.argv[1:])
    require_extras("client")
    _log_to_stderr()
    code = command_line()(prog_name="fedattn", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _log_to_stderr() -> None:
    """Stdout is for results; without the services' extra nothing logs."""
    with suppress(ModuleNotFoundError):
        import structlog

        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def command_line() -> "typer.Typer":
    """All commands."""
    import typer

    from fedattn.cli import (
        approvals,
        ask,
        audit,
        calibrate,
        certs,
        cost,
        demo,
        evaluate,
        keys,
        leak,
        mcp,
        nodes,
        passages,
        prepare,
        simulate,
        trace,
        up,
    )
    from fedattn.cli.doctor import command as doctor
    from fedattn.cli.epilogs import add_epilogs
    from fedattn.cli.version import print_version, root

    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(root)
    app.command("ask")(ask.ask)
    app.command("mcp")(mcp.mcp)
    app.command("nodes")(nodes.nodes)
    app.command("doctor")(doctor.doctor)
    app.command("simulate")(simulate.simulate)
    app.command("eval")(evaluate.evaluate)
    app.command("trace")(trace.trace)
    app.command("leak")(leak.leak)
    app.command("calibrate")(calibrate.calibrate)
    app.command("cost")(cost.cost)
    app.command("audit")(audit.audit)
    app.command("demo")(demo.demo)
    app.command("up")(up.up)
    app.command("version")(print_version)
    models = typer.Typer(help="Models on this machine.", no_args_is_help=True)
    models.command("prepare")(prepare.prepare)
    app.add_typer(models, name="model")
    certificates = typer.Typer(help="Certificates for mutual TLS.", no_args_is_help=True)
    certificates.command("init")(certs.init)
    certificates.command("serve")(certs.serve)
    certificates.command("token")(certs.token)
    certificates.command("join")(certs.join)
    certificates.command("revoke")(certs.revoke)
    certificates.command("list")(certs.list_certificates)
    app.add_typer(certificates, name="certs")
    callers = typer.Typer(help="API keys of a gateway: who may ask.", no_args_is_help=True)
    for name, command in keys.COMMANDS.items():
        callers.command(name)(command)
    app.add_typer(callers, name="keys")
    decisions = typer.Typer(invoke_without_command=True)
    decisions.callback()(approvals.list_approvals)
    decisions.command("approve")(approvals.approve)
    decisions.command("deny")(approvals.deny)
    decisions.command("serve")(approvals.serve)
    app.add_typer(decisions, name="approvals")
    texts = typer.Typer(help="The private text of a node, for its owner.", no_args_is_help=True)
    texts.command("show")(passages.show)
    texts.command("search")(passages.search)
    texts.command("list")(passages.list_passages)
    app.add_typer(texts, name="passages")
    add_epilogs(app)
    return app


if __name__ == "__main__":
    main()
