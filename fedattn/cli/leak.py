"""`fedattn leak`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from fedattn.cli.options import (
    AUTO,
    Codec,
    JsonOut,
    KeepEnds,
    KeepRatio,
    Model,
    Plan,
    PlotOut,
    Seed,
    Selector,
    SystemPrompt,
    read_wish,
)
from fedattn.cli.outfiles import report_console, validate_out, write_out
from fedattn.cli.plans import choose
from fedattn.cli.terminal import PlainConsole, plain_table, progress, tracked
from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.codecs import DEFAULT_CODEC
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import check_text
from fedattn.core.request import Exchange
from fedattn.core.unreadable import why_unreadable
from fedattn.research.tasks.retrieval import generate_cases
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    from fedattn.research.leak.attacks import Effort
    from fedattn.research.leak.run import Answers, Outcome, Summary

ATTACKS = ("lookup", "replay", "middle", "repeat", "withheld")
ASK_ATTACKS = ("overheard", "chosen")


def leak(
    texts: Annotated[list[Path], typer.Argument(help="Files of UTF-8, a private text each.")],
    model: Model = "default",
    plan: Plan = "auto",
    codec: Codec = DEFAULT_CODEC,
    keep_ratio: KeepRatio = None,
    selector: Selector = AUTO,
    keep_ends: KeepEnds = 0,
    exchange: Annotated[
        Literal[Exchange.ROWS, Exchange.ASK],
        typer.Option(help="What leaves: rows, or answers to queries."),
    ] = Exchange.ROWS,
    noise: Annotated[
        float,
        typer.Option(
            help="Gaussian noise added to rows, times the RMS of each; with --exchange ask to "
            "answers, times the RMS of a head's values, and to lse."
        ),
    ] = 0.0,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(ATTACKS)}; may be repeated; default: all, with --withheld all but "
            f"repeat. With --exchange ask {', '.join(ASK_ATTACKS)}."
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(help="Of the publisher that is overheard; default: what the text says."),
    ] = None,
    query_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens whose queries the attack chosen makes up.")
    ] = 20,
    query_length: Annotated[
        float, typer.Option(min=0.001, help="Of its queries, times the median of honest ones.")
    ] = 1.0,
    guided: Annotated[
        bool,
        typer.Option("--guided", help="With --exchange ask: seek each token behind the true ones."),
    ] = False,
    least_rows: Annotated[
        float,
        typer.Option(help="With --exchange ask: rows that attention is spread over at least."),
    ] = 1.0,
    withheld: Annotated[
        str | None,
        typer.Option(help="Expression of what sends no rows, as in a policy; is guessed."),
    ] = None,
    alphabet: Annotated[
        str, typer.Option(help="Characters that are unknown in what is withheld.")
    ] = "0123456789",
    rows: Annotated[
        int, typer.Option(min=1, help="Tokens behind what is withheld whose rows are compared.")
    ] = 4,
    candidates: Annotated[
        int | None,
        typer.Option(min=2, help="Likeliest tokens tried at a position; default: all there are."),
    ] = None,
    blocks: Annotated[int, typer.Option(min=1, help="Lowest blocks whose rows are compared.")] = 1,
    enough: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Gap at which no more tokens are tried; default: all are tried."
        ),
    ] = None,
    answers: Annotated[
        int, typer.Option(min=0, help="Generated questions to answer with such rows, too.")
    ] = 0,
    seed: Seed = 0,
    system_prompt: SystemPrompt = None,
    json_path: JsonOut = None,
    plot_path: PlotOut = None,
) -> None:
    """Try to recover your own texts from the KV rows that would be sent."""
    require_extras("participant", *(["plots"] if plot_path else []))
    validate_out("--json", json_path)
    validate_out("--plot", plot_path)
    wish = read_wish(codec, keep_ratio, 1.0, selector=selector, keep_ends=keep_ends, seed=seed)
    given = {path: _read_text(path) for path in texts}
    chosen = _read_attacks(attack, withheld, exchange)
    from fedattn.model.engine import open_engine
    from fedattn.research.leak.asked import Asking
    from fedattn.research.leak.asked_run import QUESTION, AskedAttacker, Publisher, score_asked
    from fedattn.research.leak.attacks import Effort
    from fedattn.research.leak.pieces import Withheld
    from fedattn.research.leak.queries import QueryStyle
    from fedattn.research.leak.received import Sending, noisy_exchange
    from fedattn.research.leak.run import Attack, Attacker, score_answers, summarize

    make_exchange = noisy_exchange(noise, seed)
    hidden = None if withheld is None else Withheld(expression=withheld, alphabet=alphabet)
    bounds = AnswerBounds(least_rows=least_rows, noise=noise, seed=seed)
    style = QueryStyle(num_tokens=query_tokens, length=query_length, seed=seed)
    console = progress()
    engine = open_engine(model, system_prompt, progress=console.print)
    sent = choose(plan, None, engine.model.shape.num_layers, engine.model.fingerprint, wish)
    sending = Sending(
        plan=sent.plans.publisher,
        compression=sent.compression,
        scorer=sent.scorer,
        make_exchange=make_exchange,
    )
    effort = Effort(
        num_candidates=candidates,
        num_blocks=blocks,
        enough=2.0 if enough is None else enough,
        num_rows=rows,
    )
    asking = Asking(plan=sending.plan, bounds=replace(bounds, lengths=engine.model.row_bounds))
    attacker: Attacker | AskedAttacker
    if exchange is Exchange.ROWS:
        attacker = Attacker(engine, sending, effort, hidden)
    else:
        publisher = Publisher(question=question or QUESTION, style=style, is_guided=guided)
        attacker = AskedAttacker(engine, asking, publisher, effort)
    attacks = [Attack(name) for name in chosen]
    console.print(_effort_line(chosen, len(given), effort, engine.model.sizes.vocab_size))
    running = (
        (path, _told(path, attacker.run(text, attacks), console)) for path, text in given.items()
    )
    outcomes = dict(tracked(running, "texts", len(given), console))
    summaries = [summarize(same) for same in zip(*outcomes.values(), strict=True)]
    answered = None
    if answers:
        cases = generate_cases(answers, seed=seed)
        if exchange is Exchange.ROWS:
            answered = score_answers(engine, sending, cases)
        else:
            answered = score_asked(engine, asking, cases)
    _print(report_console(json_path), summaries, chosen, answered)
    setting = {
        "exchange": exchange.value,
        "plan": str(sending.plan),
        "codec": sent.compression.codec.name,
        "keep_ratio": sent.compression.keep_ratio,
        "noise": noise,
        "least_rows": least_rows,
        "candidates": candidates or engine.model.sizes.vocab_size,
        "blocks": blocks,
        "withheld": withheld,
        "rows": rows,
    }
    if json_path is not None:
        document = _document(setting, summaries, outcomes, answered)
        write_out("--json", json_path, json.dumps(document, indent=1) + "\n")
    if plot_path is not None:
        _draw(summaries, setting, plot_path, console)


def _told(path: Path, outcomes: "Iterable[Outcome]", console: PlainConsole) -> "list[Outcome]":
    """The outcomes for one text; each is told when it is there."""
    all_of_text = []
    for outcome in outcomes:
        console.print(f"{path.name}: {outcome.attack.value} took {outcome.seconds:.1f} s")
        all_of_text.append(outcome)
    return all_of_text


def _effort_line(chosen: Sequence[str], num_texts: int, effort: "Effort", vocab_size: int) -> str:
    """What will be tried, and what makes it shorter: long may pass before more is told."""
    tried = effort.num_candidates or vocab_size
    what = f"trying {', '.join(chosen)} on {num_texts} {'text' if num_texts == 1 else 'texts'}"
    if effort.num_candidates is None and effort.enough > 1:
        return (
            f"{what}, up to {tried} candidates a token: some 15 s a token and attack for the "
            f"embedded model; with --candidates 3000 --enough 0.3 half a second"
        )
    return f"{what}, up to {tried} candidates a token"


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"text {path} cannot be read: {why_unreadable(error)}") from error
    if not text.strip():
        raise InvalidRequestError(f"text {path}: expected some text, got an empty file")
    return check_text(f"text {path}", text)


def _read_attacks(names: list[str] | None, withheld: str | None, exchange: Exchange) -> list[str]:
    """Those named, once each, in the order of ATTACKS."""
    known = ATTACKS if exchange is Exchange.ROWS else ASK_ATTACKS
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InvalidRequestError(f"unknown attack {unknown[0]!r}; use one of {', '.join(known)}")
    if exchange is Exchange.ASK:
        if withheld is not None:
            raise InvalidRequestError("--withheld goes only with --exchange rows")
        return [name for name in ASK_ATTACKS if name in (names or ASK_ATTACKS)]
    left_out = "withheld" if withheld is None else "repeat"
    if left_out in (names or ()):
        how = "only with" if withheld is None else "not together with"
        raise InvalidRequestError(f"attack {left_out!r} goes {how} --withheld")
    return [name for name in ATTACKS if name in (names or set(ATTACKS) - {left_out})]


def _print(
    out: PlainConsole,
    summaries: "Sequence[Summary]",
    chosen: Sequence[str],
    answers: "Answers | None",
) -> None:
    out.print(_table(summaries))
    if "lookup" in set(chosen) - {summary.attack.value for summary in summaries}:
        out.print("lookup: not applicable, block 0 does not travel")
    for summary in summaries:
        if summary.ranks:
            out.print(
                f"withheld: the truth came first in {sum(rank == 1 for rank in summary.ranks)} "
                f"of {len(summary.ranks)}; ranks {', '.join(map(str, summary.ranks))}; by "
                f"distance alone {', '.join(map(str, summary.ranks_by_distance))}"
            )
    if answers is not None:
        out.print(
            f"answers: {answers.num_right} of {answers.num_cases} right, NLL {answers.nll:.3f}, "
            f"{answers.kv_bytes:,.0f} KV bytes a question"
        )


def _table(summaries: "Sequence[Summary]") -> Table:
    table = plain_table(
        "attack", right=("recovered", "without rows", "mean gap", "median gap", "seconds")
    )
    for summary in summaries:
        table.add_row(
            summary.attack.value,
            f"{summary.found:.0%}",
            *("-" if share is None else f"{share:.0%}" for share in (summary.by_chance,)),
            *(
                "-" if gap is None else f"{gap:.2f}"
                for gap in (summary.mean_gap, summary.median_gap)
            ),
            f"{summary.seconds:.1f}",
        )
    return table


def _document(
    setting: dict[str, Any],
    summaries: "Sequence[Summary]",
    outcomes: "dict[Path, list[Outcome]]",
    answers: "Answers | None",
) -> dict[str, Any]:
    return {
        **setting,
        "attacks": [asdict(summary) for summary in summaries],
        "answers": None if answers is None else asdict(answers),
        "texts": [
            {"file": path.name, "outcomes": [outcome.to_json() for outcome in of_text]}
            for path, of_text in outcomes.items()
        ],
    }


def _draw(
    summaries: "Sequence[Summary]", setting: dict[str, Any], path: Path, console: PlainConsole
) -> None:
    from fedattn.research.leak.plots import draw_leak

    if not summaries:
        raise InvalidRequestError("--plot: no attack could be tried, so there is nothing to draw")
    title = f"plan {setting['plan']}, {setting['codec']}, noise {setting['noise']:g}"
    for file in draw_leak(summaries, title, path):
        console.print(f"wrote {file}")
