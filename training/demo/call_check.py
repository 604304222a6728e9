"""What makes a function call right: BFCL's AST checker for one call in Python, as a predicate.

It is lenient about the spelling of texts (case, spaces, some marks), and takes a whole number for a float. Nothing else
is forgiven: a missing, an unknown or a wrong argument makes the call wrong.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

Function = Mapping[str, Any]
"""Name, description and parameters, as the set describes a function."""

TYPES: Mapping[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}


def is_right(arguments: Mapping[str, Any], possible: Mapping[str, Sequence[Any]], function: Function) -> bool:
    """Whether each argument has one of its `possible` values, and none is missing that isn't optional.

    An argument is optional where its values have the empty text among them.
    """
    parameters = function["parameters"]
    if any(name not in arguments for name in parameters.get("required", ())):
        return False
    if any(name not in arguments and "" not in values for name, values in possible.items()):
        return False
    known = parameters["properties"]
    return all(
        name in known and name in possible and _fits(value, possible[name], known[name])
        for name, value in arguments.items()
    )


def _fits(value: Any, possible: Sequence[Any], detail: Mapping[str, Any]) -> bool:
    named, wanted = detail["type"], TYPES[detail["type"]]
    if named == "tuple" and type(value) is tuple:
        value = list(value)
    if named == "float" and type(value) is int:
        value = float(value)
    inner = TYPES[detail["items"]["type"]] if named in ("array", "tuple") else None
    kind, theirs = type(value), _type_of(possible)
    if kind is wanted:
        if inner is not None and not any(_holds(value, one, inner) for one in possible):
            return False
        other = theirs not in (None, wanted)
    elif kind is theirs:
        other = True  # The set names a variable there, or its own value is of another type than it says.
    else:
        return False
    if other or wanted not in (dict, list, str):
        return value in possible
    if wanted is dict:
        return any(_same_entries(value, one) for one in possible if one != "")
    if inner is dict:
        return any(_same_rows(value, one) for one in possible)
    if wanted is list:
        return _spelt_all(value) in map(_spelt_all, possible)
    return _spelt(value) in [_spelt(one) for one in possible if type(one) is str]


def _type_of(possible: Sequence[Any]) -> type | None:
    return next((type(one) for one in possible if one != ""), None)


def _holds(value: Sequence[Any], possible: Any, inner: type) -> bool:
    """Whether all in a list is of the type that the function says, or of the type that the right answer has."""
    return type(possible) is not list or all(type(one) in (inner, _type_of(possible)) for one in value)


def _same_rows(value: Sequence[Any], possible: Sequence[Any]) -> bool:
    return len(value) == len(possible) and all(map(_same_entries, value, possible))


def _same_entries(value: Mapping[str, Any], possible: Mapping[str, Sequence[Any]]) -> bool:
    right = all(key in possible and _spelt(one) in map(_spelt, possible[key]) for key, one in value.items())
    return right and all(key in value or "" in values for key, values in possible.items())


def _spelt_all(values: Sequence[Any]) -> list[Any]:
    return [*map(_spelt, values)]


def _spelt(value: Any) -> Any:
    """A text without what spelling varies in; anything else as it is."""
    return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"') if isinstance(value, str) else value
