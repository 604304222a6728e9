"""Relations: what a trace store's SQL can ask for, as DuckDB views over spans and labels.

A view that is not asked for costs nothing, nor does a column: expensive ones (JSON, positions) are computed when named.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from journeyman.traces import attributes as a
from journeyman.traces.assemble import WAITS
from journeyman.traces.storage.columns import SCHEMA

_GLOB = re.compile(r"[*?[]")
"""What DuckDB takes for a pattern in the name of a file, unless it stands in brackets."""


def one_file(path: str) -> str:
    """The path as DuckDB must be told it."""
    return _GLOB.sub(r"[\g<0>]", path)


def literal(value: bool | str | Sequence[str]) -> str:
    """A value as SQL writes it, whatever it holds."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"[{', '.join(map(literal, value))}]"


def recorded(paths: Mapping[frozenset[str], Sequence[str]], live: bool) -> str:
    """The view of all spans: those of the segments at `paths`, and those of the table `live` where it has any.

    `paths` are by the columns that there were when the segments were written; what a row lacks is null.
    """
    # Which gives its types to the columns that no segment has.
    whole = bool(paths) and all(known >= {*SCHEMA.names} for known in paths)
    parts = [f"SELECT {_columns(SCHEMA.names)} FROM live"] if live or not whole else []
    for known, some in paths.items():
        files = literal([one_file(path) for path in some])
        parts.append(f"SELECT {_columns(known)} FROM read_parquet({files}, hive_partitioning = false)")
    return f"CREATE OR REPLACE VIEW recorded AS {' UNION ALL '.join(parts)}"


def _columns(known: Collection[str]) -> str:
    return ", ".join(f'"{name}"' if name in known else f'NULL AS "{name}"' for name in SCHEMA.names)


def _attribute(name: str, of: str = "") -> str:
    """An attribute that has no column, as text."""
    return f"""({of}attributes ->> '$."{name}"')"""


def _field(name: str, field: str) -> str:
    """A field of an attribute that is JSON text; null where that is broken."""
    return f"""(TRY_CAST({_attribute(name)} AS JSON) ->> '$.{field}')"""


def _seconds(of: str = "") -> str:
    return f"({of}end_ns - {of}start_ns) / 1e9"


_IDS = {
    name: f"coalesce({name}, TRY_CAST({_attribute(attribute)} AS INTEGER[]))"
    for name, attribute in (("prompt_token_ids", a.PROMPT_TOKEN_IDS), ("token_ids", a.TOKEN_IDS))
}

WIDE = {
    "system_instructions": _attribute(a.SYSTEM_INSTRUCTIONS),
    "tool_definitions": _attribute(a.TOOL_DEFINITIONS),
    "output_type": _attribute(a.OUTPUT_TYPE),
    "grown": "grown",
    "run_id": _attribute(a.RUN_ID),
    "weights": _attribute(a.WEIGHTS),
    "input_messages": f"coalesce(input_messages, {_attribute(a.INPUT_MESSAGES)})",
    "output_messages": f"coalesce(output_messages, {_attribute(a.OUTPUT_MESSAGES)})",
    **_IDS,
    **{f"{name}_json": f"to_json({form})" for name, form in _IDS.items()},
    "logprobs": f"coalesce(logprobs::DOUBLE[], TRY_CAST({_attribute(a.LOGPROBS)} AS DOUBLE[]))",
}
"""The large columns of `turns`, from a row of `spans`, also where the value did not fit its column there. System
instructions and tools are here only where they are not among the texts that `system_digest` and `tools_digest` name.
Of a prompt that grew from that of an earlier turn, as `grown` says, the new part is here.
JSON text of token ids is made here faster than from the numbers."""

SPANS = "CREATE OR REPLACE VIEW spans AS FROM recorded"
SPANS_LESS_DELETED = f"{SPANS} WHERE trace_id NOT IN (SELECT trace_id FROM deleted)"

RUN_PARTS = f"""
CREATE OR REPLACE VIEW run_parts AS
SELECT trace_id, span_id, start_ns, end_ns, workflow AS crew, run_status, coalesce(run_status, 'unfinished') AS status,
    coalesce(task_id, {_field(a.TASK, "id")}) AS task_id, coalesce(family, {_field(a.TASK, "family")}) AS family,
    coalesce(session, {_field(a.TASK, "session")}) AS session, coalesce("user", {_field(a.TASK, "user")}) AS "user",
    purpose, task_set, {_field(a.TASK, "prompt")} AS prompt, {_field(a.OUTCOME, "answer")} AS answer
FROM spans WHERE operation = 'invoke_workflow'
"""


def last_parts(columns: Sequence[str]) -> str:
    """To be grouped by `trace_id`: of each run the part that ended last, which says how the run ended."""
    last = [f"arg_max_null({name}, end_ns) AS {name}" for name in columns]
    return f"SELECT trace_id, {', '.join(last)} FROM run_parts"


_OF_A_RUN = (
    *("span_id", "start_ns", "end_ns", "crew", "run_status", "status"),
    *("task_id", "family", "session", '"user"', "purpose", "task_set", "prompt", "answer"),
)

WORKFLOWS = f"CREATE OR REPLACE VIEW workflows AS {last_parts(_OF_A_RUN)} GROUP BY trace_id"

# What a tool gave and a person must see first, no model was told: the span that says what he said follows.
_TOLD = f"error_type IS DISTINCT FROM '{WAITS}'"

# A server's own account of a call, which has no operation, is by another clock. `seconds` is the time in which the run
# was at work: what lies between its parts, when it waited for a person, does not count.
TRACES = f"""
CREATE OR REPLACE VIEW traces AS
WITH counted AS (
    SELECT trace_id, coalesce(min(start_ns) FILTER (operation IS NOT NULL), min(start_ns)) AS started_ns,
        coalesce(max(end_ns) FILTER (operation IS NOT NULL), max(end_ns)) AS ended_ns,
        sum(end_ns - start_ns) FILTER (operation = 'invoke_workflow') AS worked_ns,
        min(task_id) AS named_task, min(family) AS named_family, min(session) AS named_session,
        min("user") AS named_user, min(purpose) AS named_purpose,
        coalesce(sum(input_tokens) FILTER (operation IN {a.INFERENCE}), 0)::BIGINT AS input_tokens,
        coalesce(sum(output_tokens) FILTER (operation IN {a.INFERENCE}), 0)::BIGINT AS output_tokens,
        coalesce(sum(cached_tokens) FILTER (operation IN {a.INFERENCE}), 0)::BIGINT AS cached_tokens,
        count(*) FILTER (operation IN {a.INFERENCE}) AS model_calls,
        count(*) FILTER (operation = 'execute_tool' AND {_TOLD}) AS tool_calls
    FROM spans GROUP BY trace_id
), scores AS (
    SELECT trace_id, arg_max_null(number, at_ns) AS score FROM labels
    WHERE name = 'score' AND span_id IS NULL GROUP BY trace_id
)
SELECT trace_id, crew, coalesce(task_id, named_task) AS task_id, coalesce(family, named_family) AS family,
    coalesce(session, named_session) AS session, coalesce("user", named_user) AS "user",
    coalesce(purpose, named_purpose) AS purpose, task_set,
    coalesce(status, 'unfinished') AS status, started_ns, ended_ns,
    coalesce(worked_ns, ended_ns - started_ns) / 1e9 AS seconds,
    input_tokens, output_tokens, cached_tokens, model_calls, tool_calls, score
FROM counted LEFT JOIN workflows USING (trace_id) LEFT JOIN scores USING (trace_id)
"""

# Between an agent and its calls may lie spans of other kinds: a plan, and whatever another program's trace nests there.
# `above` says for each of them which span is the nearest agent; where the chain breaks, the id that is missing.
_ENDS = ("invoke_agent", "invoke_workflow", *a.INFERENCE)
ABOVE = f"""
CREATE OR REPLACE VIEW above AS
WITH RECURSIVE between_agents AS (
    SELECT trace_id, span_id, parent_id FROM spans
    WHERE operation IS NULL AND prefill_s IS NULL OR operation NOT IN {_ENDS}
), climb AS (
    SELECT trace_id, span_id, parent_id AS trajectory_id, 1 AS steps FROM between_agents
    UNION ALL
    SELECT climb.trace_id, climb.span_id, higher.parent_id, steps + 1
    FROM climb JOIN between_agents AS higher
        ON higher.trace_id = climb.trace_id AND higher.span_id = climb.trajectory_id
    WHERE steps < 64
)
SELECT trace_id, span_id, max_by(trajectory_id, steps) AS trajectory_id FROM climb GROUP BY trace_id, span_id
"""

AGENTS = f"""
CREATE OR REPLACE VIEW agents AS
SELECT trace_id, span_id, parent_id, agent, assignment, {_attribute(a.GOAL)} AS goal, run_status,
    {_attribute(a.ERROR)} AS error, start_ns, end_ns
FROM spans WHERE operation = 'invoke_agent'
"""

# Work that waited for a person, or was paused, has a span for each part, and ended as the last of them did.
TAKEN_UP = """
CREATE OR REPLACE VIEW taken_up AS
SELECT waiting.trace_id, waiting.span_id, arg_max_null(later.run_status, later.end_ns) AS run_status
FROM agents AS waiting JOIN agents AS later ON later.trace_id = waiting.trace_id AND later.agent = waiting.agent
    AND later.assignment IS NOT DISTINCT FROM waiting.assignment AND later.end_ns > waiting.end_ns
WHERE waiting.run_status IN ('needs_input', 'paused')
GROUP BY ALL
"""

CALLS = f"""
CREATE OR REPLACE VIEW calls AS
SELECT calls.*, {", ".join(f"{form} AS wide_{name}" for name, form in WIDE.items())},
    coalesce(above.trajectory_id, calls.parent_id, calls.span_id) AS trajectory_id
FROM spans AS calls
LEFT JOIN above ON above.trace_id = calls.trace_id AND above.span_id = calls.parent_id
WHERE calls.operation IN {(*a.INFERENCE, "execute_tool")}
"""

# A call that was tried again has an account of its server's for each attempt: that of the answer counts.
ENGINES = """
CREATE OR REPLACE VIEW engines AS
SELECT trace_id, parent_id AS span_id, response_id, end_ns, queue_s, prefill_s, decode_s
FROM spans WHERE operation IS NULL AND coalesce(queue_s, prefill_s, decode_s) IS NOT NULL
"""

# Segments that were laid out while only `chat` was a turn hold no refusal of the others: nobody looked at them.
_UNCHECKED = """CASE WHEN calls.operation <> 'chat' AND calls.demonstration IS NOT TRUE
    THEN 'recorded before its operation counted as a turn; import it again' END"""

TURNS = f"""
CREATE OR REPLACE VIEW turns AS
WITH accounts AS (
    SELECT engines.trace_id, engines.span_id, max_by(
        {{'queue_s': engines.queue_s, 'prefill_s': engines.prefill_s, 'decode_s': engines.decode_s}},
        (engines.response_id = chat.response_id, engines.end_ns)) AS account
    FROM engines JOIN (SELECT trace_id, span_id, response_id FROM spans WHERE operation IN {a.INFERENCE}) AS chat
        ON chat.trace_id = engines.trace_id AND chat.span_id = engines.span_id
    GROUP BY ALL
)
SELECT calls.trace_id, calls.span_id, calls.trajectory_id,
    row_number() OVER (
        PARTITION BY calls.trace_id, calls.trajectory_id ORDER BY calls.start_ns, calls.end_ns, calls.span_id
    ) AS position,
    coalesce(calls.agent, agents.agent) AS agent, calls.policy, calls.served_by, calls.adapter_digest,
    coalesce(taken_up.run_status, agents.run_status) AS trajectory_status,
    coalesce(calls.finish_reason, calls.attributes ->> '$."{a.FINISH_REASONS}"[0]') AS finish_reason,
    CASE WHEN calls.status = 'error' THEN coalesce({_attribute(a.ERROR, "calls.")}, 'failed') END AS error,
    calls.error_type, coalesce(calls.demonstration, false) AS demonstration,
    coalesce(calls.refusal, {_UNCHECKED}) AS refusal,
    calls.input_tokens, calls.output_tokens, calls.cached_tokens,
    account.queue_s, account.prefill_s, account.decode_s,
    calls.start_ns AS started_ns, calls.end_ns AS ended_ns, {_seconds("calls.")} AS seconds,
    formed.prompt_form, calls.system_digest, calls.tools_digest,
    {", ".join(f"calls.wide_{name} AS {name}" for name in WIDE)}
FROM calls
LEFT JOIN agents ON agents.trace_id = calls.trace_id AND agents.span_id = calls.trajectory_id
LEFT JOIN taken_up ON taken_up.trace_id = calls.trace_id AND taken_up.span_id = calls.trajectory_id
LEFT JOIN (SELECT trace_id, span_id, prompt_form FROM spans WHERE prompt_form IS NOT NULL) AS formed
    ON formed.trace_id = calls.trace_id AND formed.span_id = calls.parent_id
LEFT JOIN accounts ON accounts.trace_id = calls.trace_id AND accounts.span_id = calls.span_id
WHERE calls.operation IN {a.INFERENCE}
"""

TOOL_CALLS = f"""
CREATE OR REPLACE VIEW tool_calls AS
SELECT trace_id, span_id, trajectory_id, agent, tool,
    coalesce({_attribute(a.TOOL_STATUS)}, if(status = 'error', 'failed', 'ok')) AS status,
    {_attribute(a.TOOL_CALL_ARGUMENTS)} AS arguments,
    coalesce({_field(a.TOOL_CALL_RESULT, "content")}, {_attribute(a.TOOL_CALL_RESULT)}) AS result,
    start_ns AS started_ns, end_ns AS ended_ns, {_seconds()} AS seconds
FROM calls WHERE operation = 'execute_tool' AND {_TOLD}
"""

# What waited, or was interrupted, goes on with what was decided before, so that the span of its last part has it all.
DECISIONS = f"""
CREATE OR REPLACE VIEW decisions AS
SELECT trace_id, span_id, agent, assignment, tool, start_ns AS started_ns, unnest(
    TRY_CAST(TRY_CAST({_attribute(a.DECISIONS)} AS JSON)
        AS STRUCT(source VARCHAR, name VARCHAR, place VARCHAR, action VARCHAR, reason VARCHAR)[]),
    recursive := true)
FROM (
    FROM spans WHERE {_attribute(a.DECISIONS)} IS NOT NULL
    QUALIFY operation NOT IN ('invoke_agent', 'invoke_workflow')
        OR row_number() OVER (PARTITION BY trace_id, operation, agent, assignment ORDER BY end_ns DESC) = 1
)
"""

TRAJECTORIES = f"""
CREATE OR REPLACE VIEW trajectories AS
WITH counted AS (
    SELECT trace_id, trajectory_id, min(start_ns) AS first_ns, max(end_ns) AS last_ns,
        min_by(agent, start_ns) AS agent, min_by(assignment, start_ns) AS assignment,
        min_by(policy, start_ns) FILTER (operation IN {a.INFERENCE}) AS policy,
        count(*) FILTER (operation IN {a.INFERENCE}) AS turns,
        coalesce(sum(input_tokens) FILTER (operation IN {a.INFERENCE}), 0)::BIGINT AS input_tokens,
        coalesce(sum(output_tokens) FILTER (operation IN {a.INFERENCE}), 0)::BIGINT AS output_tokens
    FROM calls GROUP BY ALL
)
SELECT coalesce(agents.trace_id, counted.trace_id) AS trace_id,
    coalesce(agents.span_id, counted.trajectory_id) AS span_id, agents.parent_id,
    coalesce(agents.agent, counted.agent) AS agent, coalesce(agents.assignment, counted.assignment) AS assignment,
    goal, run_status AS status, error, policy,
    coalesce(turns, 0) AS turns, coalesce(input_tokens, 0) AS input_tokens, coalesce(output_tokens, 0) AS output_tokens,
    coalesce(start_ns, first_ns) AS started_ns, coalesce(end_ns, last_ns) AS ended_ns,
    (ended_ns - started_ns) / 1e9 AS seconds
FROM agents FULL JOIN counted ON counted.trace_id = agents.trace_id AND counted.trajectory_id = agents.span_id
"""

RELATIONS = (
    *(RUN_PARTS, WORKFLOWS, TRACES, ABOVE, AGENTS, TAKEN_UP, CALLS, ENGINES),
    *(TURNS, TOOL_CALLS, DECISIONS, TRAJECTORIES),
)
"""In an order in which each needs earlier ones only."""
