"""Verifiers: code that accepts what an agent answered, or says in one line why not.

A verifier is a function of the output and its assignment, and of nothing else: a run that is taken up again after a
crash asks it anew. In a crew's file it is a text: `integer`, `number`, `date`, `unit:km`, `pattern:[A-Z]{2}`,
`one_of:yes|no`, `json_schema:{"type": "object"}`, or a function of one's own, `module:function`. Those in the box look
at each value of an output that is a list, so that a list without values, which may be right, passes.
"""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from datetime import date
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, JsonValue, PlainSerializer

from journeyman.agents.plan import Assignment
from journeyman.traces.errors import ConfigError
from journeyman.traces.imports import imported

Verifier = Callable[[JsonValue, Assignment], str | None]
"""Returns None for an output that it accepts, else the reason why not, for the model to read."""

NUMBER = r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?([eE][+-]?\d+)?"
"""Digits, with commas between thousands or without."""


def refusal(verifiers: Sequence[str | Verifier], output: JsonValue, assignment: Assignment) -> str | None:
    """What the first verifier that refuses `output` says; one that breaks has not accepted it."""
    for one in verifiers:
        try:
            reason = find_verifier(one)(output, assignment)
        except Exception as error:  # Somebody else's code: whatever it raises, the output is not verified.
            reason = f"verifier {verifier_name(one)} broke: {type(error).__name__}: {error}"
        if not isinstance(reason, str | None):
            reason = f"verifier {verifier_name(one)} broke: it gave {reason!r}, neither None nor a reason"
        if reason is not None:
            return reason
    return None


def verifier_name(one: str | Verifier) -> str:
    return one if isinstance(one, str) else getattr(one, "__qualname__", type(one).__name__)


def find_verifier(one: str | Verifier) -> Verifier:
    """The function for a verifier as a crew names it; raises `ConfigError` where there is none."""
    return _written(one) if isinstance(one, str) else one


def _check_names(verifiers: tuple[str | Verifier, ...]) -> tuple[str | Verifier, ...]:
    for one in verifiers:
        found = find_verifier(one)
        if inspect.iscoroutinefunction(found) or not _takes_two(found):
            raise ConfigError(
                f"verifier {verifier_name(one)!r} must be a plain function of two: an output and its assignment"
            )
    return verifiers


def _takes_two(function: Verifier) -> bool:
    try:
        inspect.signature(function).bind("output", "assignment")
    except TypeError:
        return False
    except ValueError:  # It was not written in Python, and does not say what it takes.
        return True
    return True


def _names(verifiers: tuple[str | Verifier, ...]) -> tuple[str, ...]:
    return tuple(map(verifier_name, verifiers))


Verifiers = Annotated[tuple[str | Verifier, ...], AfterValidator(_check_names), PlainSerializer(_names)]
"""Verifiers of an agent's outputs or of a crew's answer, tried in their order."""


@cache
def _written(text: str) -> Verifier:
    kind, colon, argument = text.partition(":")
    if not colon and kind in PLAIN:
        return _each(PLAIN[kind])
    if colon and kind in WITH_ARGUMENT:
        return _each(WITH_ARGUMENT[kind](argument))
    if not colon:
        known = ", ".join([*PLAIN, *(f"{kind}:..." for kind in WITH_ARGUMENT)])
        raise ConfigError(f'unknown verifier {text!r}; have {known}, or write "module:function"')
    verifier = imported(text, "verifier")
    if not callable(verifier):
        raise ConfigError(f"verifier {text!r} is a {type(verifier).__name__}, not a function")
    found: Verifier = verifier
    return found


ValueCheck = Callable[[str], str | None]


def _each(check: ValueCheck) -> Verifier:
    def verify(output: JsonValue, assignment: Assignment) -> str | None:
        values = output if isinstance(output, list) else [output]
        return next((reason for value in values if (reason := check(str(value).strip())) is not None), None)

    return verify


def _integer(value: str) -> str | None:
    return None if re.fullmatch(r"[+-]?(\d+|\d{1,3}(,\d{3})+)", value) else f"{_shown(value)} is not a whole number"


def _number(value: str) -> str | None:
    return None if re.fullmatch(NUMBER, value) else f"{_shown(value)} is not a number"


def _date(value: str) -> str | None:
    try:
        date.fromisoformat(value)
    except ValueError:
        return f"{_shown(value)} is not a date such as 2024-02-29"
    return None


def _unit(unit: str) -> ValueCheck:
    if not unit:
        raise ConfigError("verifier 'unit:' needs a unit, such as unit:km")

    def check(value: str) -> str | None:
        fits = re.fullmatch(rf"{NUMBER}\s*{re.escape(unit)}", value)
        return None if fits else f"{_shown(value)} is not a number of {unit}, such as 12 {unit}"

    return check


def _pattern(pattern: str) -> ValueCheck:
    if not pattern:
        raise ConfigError("verifier 'pattern:' needs a regular expression, such as pattern:[A-Z]{2}")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"verifier {f'pattern:{pattern}'!r} isn't a regular expression: {error}") from None
    return lambda value: None if compiled.fullmatch(value) else f"{_shown(value)} does not match {pattern}"


def _one_of(choices: str) -> ValueCheck:
    allowed = [choice.strip() for choice in choices.split("|")]
    if "" in allowed:
        raise ConfigError(f"verifier {f'one_of:{choices}'!r} has an empty choice; write one_of:yes|no")
    return lambda value: None if value in allowed else f"{_shown(value)} is not one of {', '.join(allowed)}"


def _json_schema(schema: str) -> ValueCheck:
    # Takes a tenth of a second to import, which a crew without such a verifier need not wait for.
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    try:
        parsed = json.loads(schema)
        kind = validator_for(parsed)
        kind.check_schema(parsed)
    except (ValueError, SchemaError) as error:
        raise ConfigError(f"verifier 'json_schema:' holds no JSON schema: {str(error).splitlines()[0]}") from None
    # An empty registry: a reference to an address is never fetched.
    validator = kind(parsed, registry=Registry())

    def check(value: str) -> str | None:
        try:
            wrong = next(validator.iter_errors(json.loads(value)), None)
        except json.JSONDecodeError as error:
            return f"it is not valid JSON ({error.msg})"
        if wrong is None:
            return None
        return f"{'.'.join(map(str, wrong.absolute_path)) or 'the value'}: {wrong.message}"

    return check


PLAIN: dict[str, ValueCheck] = {"integer": _integer, "number": _number, "date": _date}
WITH_ARGUMENT: dict[str, Callable[[str], ValueCheck]] = {
    "unit": _unit,
    "pattern": _pattern,
    "one_of": _one_of,
    "json_schema": _json_schema,
}


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else f"{value[:80]}...")
