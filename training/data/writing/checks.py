"""Checks: what a written task has to pass, as a user names them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from journeyman.traces.base import read_text
from journeyman.traces.errors import ConfigError, in_one_line
from journeyman.traces.imports import imported
from journeyman.traces.trace import Task
from journeyman.training.data.writing.drafts import RefusedError
from journeyman.training.data.writing.golds import CalculationGold, Gold, SqlGold

Check = Callable[[Task], str | None]
"""Returns None for a task that it accepts, else the reason why not."""

KNOWN = "sql:DATABASE, calculation, schema:FILE, agree:N, or module:function"
MOST_OPINIONS = 20


@dataclass(frozen=True)
class Checks:
    """All that were named."""

    gold: Gold | None = None
    """What computes references."""
    answer: Mapping[str, Any] | None = None
    """The JSON schema of a reference."""
    agree: int = 0
    """How often the model has to come to the same again."""
    others: Mapping[str, Check] = field(default_factory=dict)
    """By name."""

    @property
    def references(self) -> bool:
        """Whether anything checks a reference that a model gives."""
        return bool(self.gold or self.agree or self.others)


def parse_checks(named: Sequence[str]) -> Checks:
    """The checks of those names; raises `ConfigError`."""
    golds, answer, agree, others = list[Gold](), None, 0, dict[str, Check]()
    for name in dict.fromkeys(named):
        kind, _, rest = name.partition(":")
        match kind:
            case "sql" if rest:
                golds.append(SqlGold(Path(rest)))
            case "calculation" if not rest:
                golds.append(CalculationGold())
            case "agree":
                agree = max(agree, _opinions(rest))
            case "schema" if rest:
                answer = _schema(Path(rest))
                others[name] = _fits(answer)
            case _ if kind and rest and kind != "calculation":
                others[name] = _function(name)
            case _:
                raise ConfigError(f"--check {name!r} is unknown: have {KNOWN}")
    if len(golds) > 1:
        raise ConfigError(f"a reference comes from one computation: name {golds[0].name} or {golds[1].name}, not both")
    return Checks(gold=golds[0] if golds else None, answer=answer, agree=agree, others=others)


def _opinions(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MOST_OPINIONS:
        raise ConfigError(f"--check agree:{text}: write how often the model is asked again, 1 to {MOST_OPINIONS}")
    return int(text)


def _schema(path: Path) -> dict[str, Any]:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        schema = json.loads(read_text(path))
        validator_for(schema).check_schema(schema)
    except (json.JSONDecodeError, SchemaError) as error:
        raise ConfigError(f"{path}: not a JSON schema: {str(error).splitlines()[0]}") from None
    if not isinstance(schema, dict):
        raise ConfigError(f'{path}: not a JSON schema: write an object, as {{"type": "string"}}')
    return schema


def _fits(schema: Mapping[str, Any]) -> Check:
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # An empty registry: a reference to an address is never fetched.
    validator = validator_for(schema)(schema, registry=Registry())

    def check(task: Task) -> str | None:
        try:
            wrong = best_match(validator.iter_errors(task.reference))
        except Unresolvable as error:
            return f"it points elsewhere: {error}"
        return None if wrong is None else f"the reference: {wrong.message}"

    return check


def _function(name: str) -> Check:
    function = imported(name, "check")
    if not callable(function):
        raise ConfigError(f"check {name!r} is a {type(function).__name__}, not a function of a task")

    def check(task: Task) -> str | None:
        try:
            reason = function(task)
        except Exception as error:  # Somebody else's code: what it raises isn't approval.
            return f"it broke: {in_one_line(error)}"
        return reason if isinstance(reason, str | None) else f"it broke: it gave {reason!r}, neither None nor a reason"

    return check


def check_others(checks: Checks, task: Task) -> None:
    """Raises `RefusedError` with what the first check says."""
    for name, check in checks.others.items():
        if (reason := check(task)) is not None:
            raise RefusedError(f"{name} refuses it", reason)
