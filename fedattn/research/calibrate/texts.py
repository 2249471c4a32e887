"""Texts of many kinds to learn from: scores that were fitted on facts alone rank log lines worse.

To add a kind: a function that writes one line, and its entry in `KINDS`.
"""

from collections.abc import Callable, Iterator
from itertools import chain, cycle, islice
from random import Random

from fedattn.passages.reader import PassageReader
from fedattn.research.tasks.vocabulary import (
    CITIES,
    COURSES,
    FIRST_NAMES,
    GOODS,
    MACHINES,
    MONTHS,
    ROOMS,
    SHIPS,
    SHOPS,
    SURNAMES,
)
from fedattn.research.tasks.worlds import CountTokens, WorldShape, generate_worlds

Line = Callable[[Random], str]

_SERVICES = ("auth", "billing", "gateway", "scheduler", "storage", "mailer", "search", "sensors")
_EVENTS = (
    "request {n} served in {m} ms", "retrying connection to 10.0.{k}.{m}, attempt {k}",
    "disk /dev/sd{c} is {k}% full", "session {n} closed by peer", "queue holds {m} messages",
    "user {name} signed in from {city}", "temperature {k}.{m} C above limit",
    "job {n} failed: {why}",
)  # fmt: skip
_REASONS = ("timeout", "permission denied", "out of memory", "no such file", "checksum mismatch")
_VERBS = (
    "repaired", "sold", "painted", "measured", "borrowed", "forgot", "described", "ordered",
    "inspected", "hid", "counted", "returned",
)  # fmt: skip
_CLAUSES = (
    "because it had rained all morning", "although nobody had asked for it",
    "before the last train left", "while the others waited outside", "as if nothing had happened",
    "which surprised the whole village", "and wrote a long letter about it",
    "without telling anyone why",
)  # fmt: skip
_IDENTIFIERS = (
    "load_config", "parse_line", "send_batch", "update_index", "check_limit", "read_sensor",
    "merge_parts", "close_session", "format_report", "find_route",
)  # fmt: skip
_FIELDS = ("timeout", "limit", "path", "offset", "retries", "threshold", "width", "batch_size")
_MONATE = (
    "Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober",
    "November", "Dezember",
)  # fmt: skip
_GERMAN = (
    "Am {d}. {monat} hat {name} in {city} {m} Kisten abgeholt, obwohl nichts vereinbart war.",
    "Frau {surname} ist unter der Durchwahl {n} zu erreichen, außer am Freitagnachmittag.",
    "Die Heizung im Gebäude {k} wurde auf {d} Grad eingestellt und danach nicht mehr geprüft.",
    "Nächste Besprechung: {d}. {monat}, {k} Uhr, Raum {m}; {name} bringt die Unterlagen mit.",
    "Als der Regen aufhörte, gingen {name} und {other} langsam über die Brücke zurück zum Bahnhof.",
    "Die Rechnung {n} über {m},{d} Euro ist noch offen und wird von {name} bezahlt.",
)  # fmt: skip


def _log_line(rng: Random) -> str:
    level = rng.choice(("INFO", "INFO", "DEBUG", "WARN", "ERROR"))
    clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
    day = f"2026-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    event = rng.choice(_EVENTS).format(**_values(rng))
    return f"{day}T{clock}Z {level} {rng.choice(_SERVICES)}[{rng.randrange(100, 9999)}] {event}"


def _code(rng: Random) -> str:
    name, field, other = rng.choice(_IDENTIFIERS), *rng.sample(_FIELDS, 2)
    number = rng.randrange(2, 5000)
    return rng.choice((
        f"def {name}({field}: int, {other}: int = {number}) -> int:\n"
        f"    if {field} > {other}:\n        raise ValueError(f\"{field} is {{{field}}}\")\n"
        f"    return {field} * {rng.randrange(2, 64)}\n",
        f"{field.upper()} = {number}",
        f"for {field} in range({number}):\n    {name}({field}, {other}=config[\"{other}\"])",
        f"{{\"{field}\": {number}, \"{other}\": \"{rng.choice(GOODS)}\", \"id\": \"{name}\"}}",
    ))  # fmt: skip


def _prose(rng: Random) -> str:
    name, other = rng.sample(FIRST_NAMES, 2)
    thing = rng.choice(MACHINES + GOODS)
    place = f"{rng.choice(ROOMS + SHOPS)} in {rng.choice(CITIES)}"
    return rng.choice((
        f"{name} {rng.choice(_VERBS)} the {thing} of the {place}, {rng.choice(_CLAUSES)}.",
        f"Years later {other} still spoke of the {rng.choice(SHIPS)} and of {name}, who had once "
        f"{rng.choice(_VERBS)} a {thing} {rng.choice(_CLAUSES)}.",
        f"\"You should learn {rng.choice(COURSES)},\" said {name}, {rng.choice(_CLAUSES)}.",
        f"In {rng.choice(MONTHS)} the {place} was sold to {name} {rng.choice(SURNAMES)}.",
    ))  # fmt: skip


def _german(rng: Random) -> str:
    return rng.choice(_GERMAN).format(**_values(rng))


def _table(rng: Random) -> str:
    what = rng.choice(GOODS), rng.choice(CITIES), rng.choice(SURNAMES)
    return ";".join((*what, str(rng.randrange(10_000)), f"{rng.uniform(0, 500):.2f}"))


def _values(rng: Random) -> dict[str, str]:
    name, other = rng.sample(FIRST_NAMES, 2)
    return {
        "n": str(rng.randrange(1000, 99_999)), "m": str(rng.randrange(2, 999)),
        "k": str(rng.randrange(1, 99)), "c": rng.choice("abcdef"), "d": str(rng.randrange(10, 29)),
        "name": f"{name} {rng.choice(SURNAMES)}", "other": other, "surname": rng.choice(SURNAMES),
        "city": rng.choice(CITIES), "why": rng.choice(_REASONS), "monat": rng.choice(_MONATE),
    }  # fmt: skip


KINDS: dict[str, Line] = {
    "log": _log_line, "code": _code, "prose": _prose, "german": _german, "table": _table,
}  # fmt: skip


def fact_texts(length: int, count: int, count_tokens: CountTokens, seed: int) -> list[str]:
    """Contexts of as many worlds as it takes, about so many tokens each."""
    shape = WorldShape(length=length, num_questions=1)
    cases = generate_worlds(-(-count // shape.num_contexts), shape, count_tokens, seed=seed)
    return list(chain.from_iterable(case.contexts for case in cases))[:count]


def other_texts(length: int, count: int, count_tokens: CountTokens, seed: int) -> Iterator[str]:
    """Texts of the other kinds in turn, at least so many tokens each."""
    for index, kind in zip(range(count), cycle(KINDS)):
        rng = Random(f"{seed}/{length}/{index}")  # noqa: S311 - no secret
        lines: list[str] = []
        size = 0
        while size < length:
            lines.append(KINDS[kind](rng))
            size += count_tokens(lines[-1] + "\n")
        yield "\n".join(lines)


def own_contexts(
    reader: PassageReader, tokenize: Callable[[str], list[int]], lengths: list[int]
) -> Iterator[list[int]]:
    """Token ids of what a participant would give: its passages in order, cut to these lengths.

    Args:
        reader: of the passages.
        tokenize: a passage as it stands in a context.
        lengths: tokens of one context after the other; fewer come if the text is short.
    """
    passages = iter(reader.first(reader.counts.num_passages))
    tokens = chain.from_iterable(tokenize(passage.text) for passage in passages)
    for length in lengths:
        if context := list(islice(tokens, length)):
            yield context
