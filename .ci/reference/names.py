"""Public names of Python: what the packages export, with signatures, fields and methods."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from reference.source import (
    assigned,
    definition,
    described,
    docstring,
    joined,
    lineage,
    meanings,
    paragraphs,
    source,
    table,
    texts_below,
)

PACKAGES = ("journeyman.runtime", "journeyman.agents")
WIDTH = 100
"""Columns of a signature that is written on one line."""


def names(shown: Mapping[type, str]) -> Iterator[str]:
    """A class whose fields were `shown` as the keys of a table refers to that."""
    yield "## Python"
    known: set[str] = set()
    for package in PACKAGES:
        homes = exported(package)
        yield f"### {package}"
        if again := [f"`{name}`" for name in homes if name in known]:
            yield f"Also here: {', '.join(again)}."
        for name, module in homes.items():
            if name not in known:
                yield f"#### `{name}`"
                yield from named(name, module, shown)
        known |= homes.keys()


def exported(package: str) -> dict[str, str]:
    """The public names of a package in the order of its modules, each with its module."""
    (checked,) = [node for node in source(package) if isinstance(node, ast.If)]
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    return {name.name: str(node.module) for node in imports for name in node.names}


def named(name: str, module: str, shown: Mapping[type, str]) -> Iterator[str]:
    value = getattr(import_module(module), name)
    if isinstance(value, type):
        yield paragraphs(docstring(value), name)[0]
        yield from [f"Its fields are the keys of `{shown[value]}`."] if value in shown else _parts(value)
    elif inspect.isfunction(value):
        yield paragraphs(docstring(value), name)[0]
        yield _code(_signature(name, definition(value)))
    else:
        yield described(texts_below(source(module)).get(name), name)
        (node,) = [node for node in source(module) if assigned(node) == name]
        yield _code(ast.get_source_segment(inspect.getsource(import_module(module)), node) or "")


def _parts(kind: type) -> Iterator[str]:
    """Fields, or what it is made with, and methods that say what they do."""
    body = [node for base in lineage(kind) for node in definition(base).body]
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if fields := {name: node for node in body if isinstance(node, ast.AnnAssign) and (name := _field(node))}:
        told, optional = meanings(kind), getattr(kind, "__optional_keys__", ())
        rows = [
            (f"`{name}`", _type(node), "" if name in optional else _default(node), joined(told.get(name, "")))
            for name, node in fields.items()
        ]
        yield table(("field", "type", "default", "meaning"), rows)
    elif made := [node for node in functions if node.name == "__init__"]:
        yield _code(_signature(kind.__name__, made[-1]))
    if methods := [_method(node) for node in functions if not node.name.startswith("_") and ast.get_docstring(node)]:
        yield table(("method or property", "meaning"), methods)


def _field(node: ast.AnnAssign) -> str | None:
    name = assigned(node)
    return None if name is None or name.startswith("_") or "ClassVar" in _type(node) else name


def _type(node: ast.AnnAssign) -> str:
    return f"`{ast.unparse(node.annotation)}`"


def _default(node: ast.AnnAssign) -> str:
    default = node.value
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "Field":
        given = {str(keyword.arg): keyword.value for keyword in default.keywords}
        if factory := given.get("default_factory"):
            return f"`{ast.unparse(factory)}()`"
        default = given.get("default")
    return "required" if default is None else f"`{ast.unparse(default)}`"


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, str]:
    meaning = paragraphs(ast.get_docstring(node), node.name)[0]
    if any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
        return f"`{node.name}`", meaning
    is_iterated = node.returns is not None and "AsyncGenerator" in ast.unparse(node.returns)
    call = "await " if isinstance(node, ast.AsyncFunctionDef) and not is_iterated else ""
    return f"`{call}{node.name}({', '.join(_parameters(node.args, typed=False))})`", meaning


def _signature(name: str, node: Any) -> str:
    parameters = _parameters(node.args)
    returned = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    line = f"{name}({', '.join(parameters)}){returned}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {parameter}," for parameter in parameters), f"){returned}"])


def _parameters(given: ast.arguments, *, typed: bool = True) -> list[str]:
    def written(one: ast.arg, default: ast.expr | None = None) -> str:
        equals = " = " if typed and one.annotation else "="
        return (ast.unparse(one) if typed else one.arg) + (f"{equals}{ast.unparse(default)}" if default else "")

    positional = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(positional) - len(given.defaults)), *given.defaults]
    shown = [written(*pair) for pair in zip(positional, defaults, strict=True) if pair[0].arg not in ("self", "cls")]
    if given.vararg or given.kwonlyargs:
        shown.append(f"*{written(given.vararg) if given.vararg else ''}")
    shown += map(written, given.kwonlyargs, given.kw_defaults)
    return [*shown, f"**{written(given.kwarg)}"] if given.kwarg else shown


def _code(text: str) -> str:
    return f"```py\n{text}\n```"
