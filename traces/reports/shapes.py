"""Shapes: whether a structured value, such as a list of messages, has the form that the GenAI conventions give it."""

import json
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.conventions import conventions


def misfits(shape: str, value: JsonValue) -> Iterator[str]:
    """What is wrong with `value`, in words with a path; `shape` is a form, `[]` after it for a list of them.

    On a span a structured value may be JSON text. A digest in its place says nothing that could be wrong.
    """
    if isinstance(value, str):
        if value.startswith(a.DIGEST_ONLY):
            return
        try:
            value = json.loads(value)
        except ValueError:
            yield "it is text that is not JSON"
            return
    yield from _misfits(shape, value, "")


def is_type(kind: str, value: JsonValue) -> bool:
    """Whether a value is of one of the conventions' types. A whole number is no `double`: on the wire they differ."""
    match kind:
        case "any":
            return True
        case "string":
            return isinstance(value, str)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "double":
            return isinstance(value, float)
        case "boolean":
            return isinstance(value, bool)
        case "strings":
            return isinstance(value, list) and all(isinstance(one, str) for one in value)
        case "object":
            return isinstance(value, dict)
    raise AssertionError(kind)


def _misfits(shape: str, value: JsonValue, path: str) -> Iterator[str]:
    if shape.endswith("[]"):
        if not isinstance(value, list):
            yield f"{path or 'it'} is not a list"
            return
        for place, one in enumerate(value):
            yield from _misfits(shape[:-2], one, f"{path}[{place}]")
    elif shape in conventions().forms:
        yield from _form(shape, value, path)
    elif not is_type(shape, value):
        yield f"{path or 'it'} is not {'an' if shape[0] in 'aeio' else 'a'} {shape}"


def _form(form: str, value: JsonValue, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} is not an object"
        return
    table = conventions()
    fields = table.forms[form]
    if form == "part":
        fields = fields | table.parts.get(str(value.get("type")), {})
    yield from _fields(fields, value, path)


def _fields(fields: Mapping[str, str], value: Mapping[str, JsonValue], path: str) -> Iterator[str]:
    for field, kind in fields.items():
        shape = kind.removesuffix("?")
        if value.get(field) is None and shape != kind:
            continue
        if field not in value:
            yield f"{path} has no {field}"
        else:
            yield from _misfits(shape, value[field], f"{path}.{field}")
