"""What the source says: docstrings of classes, and those below their fields and below a module's constants."""

import ast
import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any


class UndescribedError(Exception):
    """Something public has no docstring."""


def described(text: str | None, what: str) -> str:
    """`text` on one line."""
    if not text:
        raise UndescribedError(f"{what} has no description: write a docstring where it is defined")
    return joined(text)


def joined(text: str) -> str:
    return " ".join(text.split())


def paragraphs(text: str | None, what: str) -> list[str]:
    described(text, what)
    return [joined(paragraph) for paragraph in (text or "").split("\n\n")]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@cache
def source(module: str) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(import_module(module))).body


def definition(of: type | Callable[..., Any]) -> Any:
    """The syntax of a class or a function; of one with overloads the one that is called."""
    return [node for node in source(of.__module__) if getattr(node, "name", None) == of.__name__][-1]


def docstring(of: type | Callable[..., Any]) -> str | None:
    """Its own, never one that it inherits."""
    return ast.get_docstring(definition(of))


def meanings(kind: type) -> dict[str, str]:
    """The docstrings below the fields of a class, and of what it inherits from."""
    return {name: text for base in lineage(kind) for name, text in texts_below(definition(base).body).items()}


def lineage(kind: type) -> list[type]:
    """Our own classes that it is made of, the oldest first; a TypedDict keeps its bases apart."""
    bases = [*reversed(kind.__mro__), *getattr(kind, "__orig_bases__", ()), kind]
    return [base for base in dict.fromkeys(bases) if getattr(base, "__module__", "").startswith("journeyman")]


def texts_below(body: Sequence[ast.stmt]) -> dict[str, str]:
    """The docstrings below assignments, by the name that is assigned."""
    texts = {}
    for statement, after in pairwise(body):
        match after:
            case ast.Expr(value=ast.Constant(value=str(text))) if name := assigned(statement):
                texts[name] = text
    return texts


def assigned(node: ast.stmt) -> str | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None
