"""The names that the code has: identifiers, short strings, members of classes and messages."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.harness.codebase import PRODUCT, ROOT, paths

_WORD = re.compile(r"[A-Za-z_][\w.:@+-]{0,60}")


@dataclass(frozen=True, slots=True)
class Names:
    """Identifiers and short strings of the code.

    Attributes:
        known: every one, wherever it stands but in comments and docstrings.
        members: class, message, enum or service -> what it has, inherited members included.
    """

    known: frozenset[str]
    members: dict[str, frozenset[str]]


@cache
def names() -> Names:
    """Read all product code, the definitions of the tests, and the protos."""
    known = {Path(path).stem for path in paths()}
    members: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for path in sorted(paths()):
        if path.startswith("proto/") and path.endswith(".proto"):
            _read_proto((ROOT / path).read_text(), known, members)
        elif path.endswith(".py") and "/wire/v1/" not in path:
            tree = ast.parse((ROOT / path).read_text())
            known |= set(_words(tree)) if path.startswith(PRODUCT) else set(_definitions(tree))
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    members.setdefault(node.name, set()).update(_members(node))
                    bases.setdefault(node.name, []).extend(map(_last_name, node.bases))
    return Names(
        frozenset(known), {name: frozenset(_inherited(name, members, bases)) for name in members}
    )


def _words(tree: ast.Module) -> Iterator[str]:
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ImportFrom(module=str(name)):
                yield from (name, *name.split("."))
            case ast.alias(name=name):
                yield from (name, *name.split("."))
            case ast.Constant(value=str(text)) if id(node) not in texts:
                if re.fullmatch(r"[\w./:@+*-]{1,80}", text):
                    yield text


def _definitions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name):
                yield name
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def _members(node: ast.ClassDef) -> Iterator[str]:
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _inherited(name: str, members: dict[str, set[str]], bases: dict[str, list[str]]) -> set[str]:
    found = set(members.get(name, ()))
    for base in bases.get(name, ()):
        if base != name:
            found |= _inherited(base, members, bases)
    return found


def _read_proto(text: str, known: set[str], members: dict[str, set[str]]) -> None:
    code = re.sub(r"//.*", "", text)
    known |= set(_WORD.findall(code))
    for name, body in re.findall(r"(?:message|enum|service) (\w+) \{(.*?)\n\}", code, re.DOTALL):
        members.setdefault(name, set()).update(_WORD.findall(body))


def docstrings() -> Iterator[tuple[str, str]]:
    """Path and text of every docstring of the product code."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(paths()):
        if path.startswith(PRODUCT) and path.endswith(".py") and "/wire/v1/" not in path:
            for node in ast.walk(ast.parse((ROOT / path).read_text())):
                text = ast.get_docstring(node) if isinstance(node, kinds) else None
                if text:
                    yield path, text
