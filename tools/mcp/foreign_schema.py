"""A JSON schema of somebody else's, made into one that arguments can be held to here.

Servers write schemas for other readers: with patterns of ECMAScript, references that lead nowhere, forms of older
drafts. What cannot be read is left out, and with it every keyword that would refuse more for that: it is the server's
to check. So nothing that the schema allows is refused here, and a decoder is given nothing that it cannot read.
"""

import copy
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

ONE = {
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
}
MANY = {"allOf", "anyOf", "oneOf", "prefixItems"}
NAMED = {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
"""Keywords whose value is a schema, a list of schemas, or schemas by name."""

REST = {
    "properties": "additionalProperties",
    "patternProperties": "additionalProperties",
    "prefixItems": "items",
}
"""What a keyword leaves over is held to another one, which would refuse more without it."""
REFUSES_WHAT_FITS = ("not", "if", "then", "else", "contains", "unevaluatedItems", "unevaluatedProperties")
OF_A_DOCUMENT = ("$schema", "$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary")
MAX_ROUNDS = 8
MAX_TOLD = 60


def readable(schema: Any) -> tuple[dict[str, Any], list[str]]:
    """`schema` as draft 2020-12 has it, for an object, its references all `#/...`; and what is left out of it."""
    if not isinstance(schema, dict):
        return {"type": "object"}, [] if schema is None or schema is True else [_told("the schema", schema)]
    whole = copy.deepcopy(schema)
    kind = whole.get("type", "object")
    left = [] if kind == "object" or (isinstance(kind, list) and "object" in kind) else [f"the type {kind!r}"]
    whole["type"] = "object"
    left += _Reader(whole).read()
    if left:
        _loosen(whole)
    return whole, list(dict.fromkeys(left))


def outlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The outermost parameters of a schema that is too large to be shown."""
    named = schema.get("properties", {}).items()
    told = {
        name: {key: one[key] for key in ("type", "description") if key in one}
        for name, one in named
        if isinstance(one, dict)
    }
    return {"type": "object", "properties": told, "required": schema.get("required", [])}


class _Reader:
    """One document, changed in its place."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self._whole = whole
        self._left: list[str] = []
        self._read: set[int] = set()

    def read(self) -> list[str]:
        from referencing import Registry
        from referencing.jsonschema import DRAFT202012

        self._take(self._whole)
        # After what is malformed is gone: the library walks the document to know its anchors.
        resolver = Registry().resolver_with_root(DRAFT202012.create_resource(self._whole))
        pointers = dict(_pointers(self._whole, "#"))
        references: list[tuple[dict[str, Any], str | None]] = []
        waiting: list[tuple[Any, Any]] = [(self._whole, resolver)]
        seen: set[int] = set()
        while waiting:
            schema, above = waiting.pop()
            if not isinstance(schema, dict) or id(schema) in seen:
                continue
            seen.add(id(schema))
            here = above.in_subresource(DRAFT202012.create_resource(schema))
            waiting += [(inner, here) for inner in _inner(schema)]
            for key in ("$ref", "$dynamicRef"):
                if key in schema:
                    found = self._led_to(schema[key], here)
                    references.append((schema, None if found is None else pointers.get(id(found.contents))))
                    if found is not None:
                        waiting.append((found.contents, found.resolver))
        for schema, pointer in references:
            schema.pop("$ref", None)
            schema.pop("$dynamicRef", None)
            if pointer is not None:
                schema["$ref"] = pointer
        for schema in _schemas(self._whole):
            for key in OF_A_DOCUMENT:
                schema.pop(key, None)
        return self._left

    def _led_to(self, reference: str, resolver: Any) -> Any:
        """Where a reference within the document leads to, None where to nothing that could be read."""
        try:
            found = resolver.lookup(reference)
        except Exception:  # Of the library's own kinds, or of those that parse an address.
            found = None
        if found is None or not isinstance(found.contents, dict):
            self._left.append(f"the reference {reference!r}")
            return None
        if id(found.contents) not in self._read:  # It stands where no schema is looked for, as in OpenAPI's documents.
            self._take(found.contents)
        return found

    def _take(self, schema: dict[str, Any]) -> None:
        """Brings `schema` into today's form and takes out of it what has none."""
        from jsonschema import Draft202012Validator, FormatChecker

        for one in _schemas(schema):
            self._read.add(id(one))
            _modernise(one)
        formats = FormatChecker(formats=())
        formats.checks("regex")(_compiles)
        checker = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=formats)
        for _ in range(MAX_ROUNDS):
            paths = [list(error.absolute_path) for error in checker.iter_errors(schema)]
            if not paths:
                return
            for path in paths:
                self._drop(schema, path)
        raise ValueError("its schema is beyond repair")

    def _drop(self, schema: Any, path: list[Any]) -> None:
        """Takes out the keyword that `path` leads to; what stands for a schema there may be anything then."""
        while path and isinstance(schema, dict) and path[0] in schema:
            key, inner = path[0], schema[path[0]]
            steps = 1 if key in ONE else 2 if key in NAMED | MANY else 0
            if not steps or len(path) < steps:
                break
            if len(path) == steps:
                holder, last = (schema, key) if steps == 1 else (inner, path[1])
                if holder[last] is not True:
                    self._left.append(_told(last, holder[last]))
                    holder[last] = True
                return
            schema, path = inner if steps == 1 else inner[path[1]], path[steps:]
        if path and isinstance(schema, dict) and path[0] in schema:
            self._left.append(_told(path[0], schema.pop(path[0])))
            schema.pop(REST.get(path[0], ""), None)


def _modernise(schema: dict[str, Any]) -> None:
    """Forms of older drafts, and of OpenAPI, that mean the same under another name."""
    for bound in ("Minimum", "Maximum"):
        if isinstance(strict := schema.get(f"exclusive{bound}"), bool):
            del schema[f"exclusive{bound}"]
            if strict and bound.lower() in schema:
                schema[f"exclusive{bound}"] = schema.pop(bound.lower())
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")
    kinds = schema.get("type")
    if kinds == "any":
        del schema["type"]
    if schema.pop("nullable", None) is True and isinstance(kinds, str) and kinds != "any":
        schema["type"] = [kinds, "null"]
        if isinstance(values := schema.get("enum"), list) and None not in values:
            schema["enum"] = [*values, None]
    if isinstance(schema.get("required"), bool):  # Draft 3 writes it at the property; the object's list is today's.
        del schema["required"]


def _loosen(whole: dict[str, Any]) -> None:
    """Takes out what refuses a value because something fits it: a part that was left out fits more than it did."""
    for schema in _schemas(whole):
        for key in REFUSES_WHAT_FITS:
            schema.pop(key, None)
        if "oneOf" in schema:
            either = schema.pop("oneOf")
            schema["allOf"] = [*schema.get("allOf", []), {"anyOf": either}]


def _inner(schema: dict[str, Any]) -> Iterator[Any]:
    for key, value in schema.items():
        if key in ONE:
            yield value
        elif key in MANY and isinstance(value, list):
            yield from value
        elif key in NAMED and isinstance(value, dict):
            yield from value.values()


def _schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """`schema` and all that stand in it; each may be changed in its place."""
    if isinstance(schema, dict):
        yield schema
        for inner in list(_inner(schema)):
            yield from _schemas(inner)


def _pointers(value: Any, pointer: str) -> Iterator[tuple[int, str]]:
    """Where each object of a document stands."""
    if isinstance(value, dict):
        yield id(value), pointer
        for key, inner in value.items():
            written = str(key).replace("~", "~0").replace("/", "~1").replace("%", "%25")
            yield from _pointers(inner, f"{pointer}/{written}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _pointers(inner, f"{pointer}/{number}")


def _told(key: Any, value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return f"{key}: {written if len(written) <= MAX_TOLD else written[:MAX_TOLD] + '…'}"


def _compiles(pattern: object) -> bool:
    """Whether Python reads a pattern; one that it warns of it may read in another way tomorrow."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(str(pattern))
    except (re.error, RecursionError, OverflowError, Warning):
        return False
    return True
