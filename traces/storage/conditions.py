"""Conditions: which traces are wanted, as keyword arguments and as the SQL that finds them."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, TypedDict

from journeyman.traces import attributes as a
from journeyman.traces.storage.relations import last_parts
from journeyman.traces.trace import Ending, Purpose


class Conditions(TypedDict, total=False):
    """A trace meets all that are given; None is as good as not given."""

    agent: str | None
    """It took part."""
    policy: str | Sequence[str] | None
    """It was asked, e.g. `worker@8`; of several, one of them."""
    family: str | None
    session: str | None
    user: str | None
    crew: str | None
    """The name of the crew that worked, and below of the file that the task is from. Both are told as a run ends."""
    task_set: str | None
    purpose: Purpose | None
    """It was made for that."""
    status: Ending | None
    label: str | None
    """Name of a label of the whole trace; the newest one of that name is compared with the next two."""
    value: bool | float | str | None
    """What the label says."""
    min_value: float | None
    """The label is a number, true counting as 1, and at least this."""
    text: str | None
    """Part of a message, of an agent's goal, of the task's prompt or of the answer, in exactly these letters."""
    since_ns: int | None
    """Earliest start; a run that was taken up again counts from then, and so does who took part in it."""
    until_ns: int | None
    """Latest start, not included."""
    ids: Collection[str] | None
    """Whole trace ids."""


CLOCKS_NS = 3600 * 10**9


class Query(NamedTuple):
    sql: str
    parameters: list[Any]


def found(conditions: Conditions) -> Query:
    """A query for `trace_id` and `started_ns` of the traces that meet the conditions, in no order."""
    given: dict[str, Any] = {name: value for name, value in conditions.items() if value is not None}
    tests = [test for name, write in _TESTS.items() if name in given for test in write(given)]
    source = _ended(given) if _has_ended(given) else Query(_ANY, [])
    where = " AND ".join(test.sql for test in tests) or "true"
    return Query(
        f"SELECT trace_id, start_ns AS started_ns FROM {source.sql} WHERE {where}",
        [parameter for part in (source, *tests) for parameter in part.parameters],
    )


def _has_ended(given: dict[str, Any]) -> bool:
    """Whether every run that is asked for has a workflow span; only the others need a look at all their spans."""
    return "status" in given and given["status"] != "unfinished"


def _ended(given: dict[str, Any]) -> Query:
    """What is needed of the view `workflows`, less what is too old, which DuckDB cannot skip by itself."""
    of_whom = [f'"{name}"' for name in ("family", "session", "user", "crew", "task_set", "purpose") if name in given]
    texts = ["prompt", "answer"] if "text" in given else []
    parts = last_parts(["start_ns", "run_status", *of_whom, *texts])
    return Query(f"({parts} WHERE start_ns >= ? GROUP BY trace_id)", [_earliest(given)])


_ANY = """(
    SELECT trace_id, coalesce(workflows.start_ns, spanned.start_ns) AS start_ns,
        run_status, family, session, "user", crew, task_set, purpose, prompt, answer
    FROM (SELECT trace_id, min(start_ns) AS start_ns FROM spans GROUP BY trace_id) AS spanned
    LEFT JOIN workflows USING (trace_id)
)"""

_TEXT = """(contains(prompt, ?) OR contains(answer, ?)
    OR trace_id IN (SELECT trace_id FROM agents WHERE contains(goal, ?))
    OR trace_id IN (SELECT trace_id FROM spans WHERE contains(input_messages, ?) OR contains(output_messages, ?)))"""


def _status(status: Ending) -> Query:
    # Not `status = ?`, which DuckDB would have to compute for each row before it can leave any out.
    return Query("run_status IS NULL", []) if status == "unfinished" else Query("run_status = ?", [status])


def _text(given: dict[str, Any]) -> list[Query]:
    text = given["text"]
    # Messages are JSON text, in which a quotation mark or a new line is written otherwise.
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    return [Query(_TEXT, [text, text, text, escaped, escaped])]


def _label(given: dict[str, Any]) -> list[Query]:
    tests, parameters = ["true"], [given["label"]]
    if "value" in given:
        tests.append("arg_max_null(value, at_ns) = ?")
        parameters.append(value_text(given["value"]))
    if "min_value" in given:
        tests.append("arg_max_null(number, at_ns) >= ?")
        parameters.append(given["min_value"])
    newest = "SELECT trace_id FROM labels WHERE span_id IS NULL AND name = ? GROUP BY trace_id HAVING "
    return [Query(f"trace_id IN ({newest}{' AND '.join(tests)})", parameters)]


def _test(name: str, sql: str) -> Callable[[dict[str, Any]], list[Query]]:
    return lambda given: [Query(sql, [list(given[name]) if name == "ids" else given[name]])]


def _whose(name: str) -> Callable[[dict[str, Any]], list[Query]]:
    """A run that is of something: all its spans say so, also where it died before its workflow span was written."""

    def query(given: dict[str, Any]) -> list[Query]:
        of_workflow = Query(f'"{name}" = ?', [given[name]])
        if _has_ended(given):
            return [of_workflow]
        (of_span,) = _part(name, f'"{name}" = ?')(given)
        return [Query(f"({of_workflow.sql} OR {of_span.sql})", of_workflow.parameters + of_span.parameters)]

    return query


def _part(name: str, test: str) -> Callable[[dict[str, Any]], list[Query]]:
    """A trace with such a span."""
    sql = f"trace_id IN (SELECT trace_id FROM spans WHERE start_ns >= ? AND {test})"
    return lambda given: [Query(sql, [_earliest(given), given[name]])]


def _policy(given: dict[str, Any]) -> Query:
    asked = asked_of(given["policy"])
    sql = f"SELECT trace_id FROM spans WHERE start_ns >= ? AND operation IN {a.INFERENCE} AND {asked.sql}"
    return Query(f"trace_id IN ({sql})", [_earliest(given), *asked.parameters])


def _earliest(given: dict[str, Any]) -> int:
    """No span starts before its trace, which lets DuckDB skip the older ones; clocks of several machines may differ,
    but not by an hour."""
    return int(given.get("since_ns", 0)) - CLOCKS_NS


_TESTS: dict[str, Callable[[dict[str, Any]], list[Query]]] = {
    "since_ns": _test("since_ns", "start_ns >= ?"),
    "until_ns": _test("until_ns", "start_ns < ?"),
    "status": lambda given: [_status(given["status"])],
    "family": _whose("family"),
    "session": _whose("session"),
    "user": _whose("user"),
    "crew": _test("crew", "crew = ?"),
    "task_set": _test("task_set", "task_set = ?"),
    "purpose": _whose("purpose"),
    "ids": _test("ids", "trace_id IN (SELECT unnest(?::VARCHAR[]))"),
    "agent": _part("agent", "agent = ?"),
    "policy": lambda given: [_policy(given)],
    "label": _label,
    "text": _text,
}


def asked_of(policy: str | Sequence[str]) -> Query:
    """A test for calls of that policy, or of one of those."""
    policies = [policy] if isinstance(policy, str) else list(policy)
    return Query(f"policy IN ({', '.join('?' * len(policies))})", policies)


def value_text(value: bool | float | str) -> str:
    """A label's value as the view `labels` has it."""
    return value if isinstance(value, str) else json.dumps(value)
