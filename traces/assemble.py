"""Assembling: the spans of one run, in any order, become a `Trace`; and the contract that a turn must meet."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

from journeyman.traces import attributes as a
from journeyman.traces.base import first_mistake
from journeyman.traces.capture.growth import GROWING
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message, Usage, read_reply, read_result
from journeyman.traces.prompts import Prompts
from journeyman.traces.trace import Origin, Outcome, Task, ToolResult, Trace, Trajectory, Turn

T = TypeVar("T")

WITHHELD = "content not recorded"
"""The refusal of a turn whose texts the content policy left out."""

TEXT_MISSING = "text missing"

WAITS = "needs_input"
"""`error.type` of the span of a tool call whose result waits for a person."""

CUT_SHORT = {"length": "truncated", "content_filter": "stopped by a content filter, or refused"}
"""Why a reply that ended so is no example, by its finish reason."""

_ADAPTER_POLICY = re.compile(r".+@\d+(\.\d+)?")
"""An adapter, or the weights of one step of its training."""

_TASK = TypeAdapter(Task)
_OUTCOME = TypeAdapter(Outcome)
_TOKEN_IDS = TypeAdapter(tuple[int, ...])
_LOGPROBS = TypeAdapter(tuple[float, ...])
_ARGUMENTS = TypeAdapter(dict[str, Any])
_ANY: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


def assemble(spans: Iterable[SpanRecord], labels: Iterable[Label] = ()) -> Trace:
    """The trace of spans that share a trace id; their order and repetition do not matter.

    What a crashed run never wrote is absent: without the workflow's span there is no task and no outcome, and turns
    whose agent's span is missing form a trajectory without a status. A run that was taken up again has a workflow span
    for each part: the one that ended last says how it ended, and the last of those that tell it what was decided; the
    times are of all parts together, and the seconds of those in which it worked. Raises `StoreError` where there is no
    span at all or an attribute does not hold what its name says.
    """
    known = _distinct(spans)
    if not known:
        raise StoreError("there are no spans: a trace needs at least one")
    ordered = sorted(known.values(), key=_rank)
    parts = [span for span in ordered if _operation(span) == "invoke_workflow"]
    root = max(parts, key=_end_rank, default=None)
    told = max((span for span in parts if a.DECISIONS in span.attributes), key=_end_rank, default=None)
    # A server's own account of a call is by another clock.
    own = [span for span in ordered if _operation(span) is not None] or ordered
    try:
        return Trace(
            trace_id=ordered[0].trace_id,
            crew=None if root is None else _text(root, a.WORKFLOW_NAME),
            task=None if root is None else _json(root, a.TASK, _TASK),
            origin=None if root is None else _origin(root),
            trajectories=_trajectories(ordered, known),
            outcome=None if root is None else _json(root, a.OUTCOME, _OUTCOME),
            decisions=None if told is None else _json(told, a.DECISIONS, _ANY),
            labels=tuple(sorted(labels, key=lambda label: label.at_ns)),
            started_ns=own[0].start_ns,
            ended_ns=max(span.end_ns for span in own),
            worked_ns=sum(part.end_ns - part.start_ns for part in parts) or None,
        )
    except ValidationError as error:
        raise StoreError(f"trace {ordered[0].trace_id} cannot be assembled: {first_mistake(error)}") from None


def refusal(turn: Turn, trajectory: Trajectory) -> str | None:
    """Why `turn` may not be training data, in words fit for counting; None where it meets the capture contract."""
    return turn_refusal(
        withheld=turn.withheld,
        answered=turn.response is not None,
        failed=turn.error is not None,
        finish_reason=turn.finish_reason,
        policy=turn.policy,
        served_by=turn.served_by,
        adapter_digest=turn.adapter_digest,
        weights=turn.weights,
        demonstration=turn.demonstration,
        prompted=bool(turn.prompt_token_ids),
        token_ids=turn.token_ids,
        logprobs=turn.logprobs,
    ) or trajectory_refusal(turn.agent, trajectory.status)


def turn_refusal(
    *,
    withheld: str | None,
    answered: bool,
    failed: bool,
    finish_reason: str | None,
    policy: str,
    served_by: str | None,
    adapter_digest: str | None,
    weights: str | None,
    demonstration: bool,
    prompted: bool,
    token_ids: Sequence[int] | None,
    logprobs: Sequence[float] | None,
) -> str | None:
    """The part of the capture contract that a model call answers for alone.

    `weights` is the policy that a server is asked for in the name of a prompt candidate, None for any other policy.
    `prompted` says whether there are token ids of the prompt. A demonstration needs none, and no logprobs: nobody
    sampled it, and it is learned from as text.
    """
    if not answered and not failed:
        return "no response" if finish_reason is None else WITHHELD
    if withheld is not None:
        return withheld
    if not answered:
        return "call failed"
    if finish_reason in CUT_SHORT:
        return CUT_SHORT[finish_reason]
    if failed:
        return "reply not usable"
    if served_by is None:
        return "serving policy unknown"
    if demonstration:
        return None  # A teacher's server may have another name for the model than the policy that we call it by.
    if served_by != (weights or policy):
        # A server of ours gives token ids; another endpoint, under a name of its own, is not asked for them.
        return "served by another policy" if token_ids else "another model's reply"
    if not prompted or not token_ids:
        return "no token ids"
    if logprobs is None:
        return "no logprobs"
    if len(token_ids) != len(logprobs):
        return "token ids and logprobs differ in number"
    if not all(map(math.isfinite, logprobs)):
        return "a logprob is not finite"
    if adapter_digest is None and _ADAPTER_POLICY.fullmatch(policy):
        return "no adapter digest"
    return None


def withheld(attributes: Mapping[str, JsonValue]) -> str | None:
    """Why a span's texts are not what the model saw, in words fit for counting; None where they are."""
    if a.CONTENT in attributes:
        return WITHHELD
    if a.REDACTED in attributes:
        return "redacted"
    texts = (str(attributes.get(name, ""))[: len(a.DIGEST_ONLY)] for name in (a.SYSTEM_INSTRUCTIONS, *GROWING))
    return TEXT_MISSING if a.DIGEST_ONLY in texts else None


def trajectory_refusal(agent: str | None, status: str | None) -> str | None:
    """The part of the capture contract that depends on whose turn it was, and whether that agent's work ended."""
    if not agent:
        return "no agent"
    return "trajectory unfinished" if status is None else None


def _distinct(spans: Iterable[SpanRecord]) -> dict[str, SpanRecord]:
    """Spans by id; of two that differ under one id the last in rank, whichever came first."""
    known: dict[str, SpanRecord] = {}
    for span in spans:
        other = known.setdefault(span.span_id, span)
        if other != span and _full_rank(other) < _full_rank(span):
            known[span.span_id] = span
    return known


def _rank(span: SpanRecord) -> tuple[int, int, str]:
    return span.start_ns, span.end_ns, span.span_id


def _end_rank(span: SpanRecord) -> tuple[int, int, str]:
    return span.end_ns, span.start_ns, span.span_id


def _full_rank(span: SpanRecord) -> tuple[int, bool, str]:
    return span.end_ns, not span.grown, span.model_dump_json()


def _origin(root: SpanRecord) -> Origin | None:
    told = {"purpose": a.PURPOSE, "task_set": a.TASK_SET, "task_set_digest": a.TASK_SET_DIGEST}
    values = {field: _text(root, name) for field, name in told.items()}
    judged = root.attributes.get(a.JUDGED) is True
    return None if values["purpose"] is None else Origin.model_validate(values | {"judged": judged})


def _trajectories(ordered: Sequence[SpanRecord], known: Mapping[str, SpanRecord]) -> tuple[Trajectory, ...]:
    members: dict[str, list[SpanRecord]] = defaultdict(list)
    below: dict[str, list[SpanRecord]] = defaultdict(list)
    asked = _asked(ordered, known)
    for span in ordered:
        operation = _operation(span)
        if operation == "invoke_agent":
            members[span.span_id].append(span)
        elif operation in ("plan", "execute_tool", *a.INFERENCE):
            members[_agent_above(span, known) or span.parent_id or span.span_id].append(span)
        if operation == "execute_tool":
            below[_caller(span, known, asked)].append(span)
        elif operation is None and not a.ENGINE.isdisjoint(span.attributes):
            below[span.parent_id or ""].append(span)
    prompts = Prompts(span for span in ordered if _operation(span) in a.INFERENCE)
    trajectories = [_trajectory(span_id, spans, below, known, members, prompts) for span_id, spans in members.items()]
    ordered_by_start = sorted(trajectories, key=lambda trajectory: (trajectory.started_ns, trajectory.span_id))
    return tuple(_without_rings(ordered_by_start, known))


def _asked(ordered: Sequence[SpanRecord], known: Mapping[str, SpanRecord]) -> dict[str, list[SpanRecord]]:
    """Model calls by the ids of the tool calls in their replies, where a tool's span names such an id, as others do."""
    ids = {_text(span, a.TOOL_CALL_ID) for span in ordered if _operation(span) == "execute_tool"} - {None, *known}
    asked: dict[str, list[SpanRecord]] = defaultdict(list)
    for span in ordered if ids else ():
        if _operation(span) in a.INFERENCE and (reply := _reply(span)):
            for call in reply.tool_calls:
                asked[call.id].append(span)
    return asked


def _caller(span: SpanRecord, known: Mapping[str, SpanRecord], asked: Mapping[str, Sequence[SpanRecord]]) -> str:
    """The span of the model call that asked for a tool call: ours names it, another program's names the call."""
    named, above = _text(span, a.TOOL_CALL_ID) or "", known.get(span.parent_id or "")
    if named in known:
        return named
    earlier = [call for call in asked.get(named, ()) if call.start_ns <= span.start_ns]
    mine = [call for call in earlier if _agent_above(call, known) == _agent_above(span, known)] or earlier
    if mine:
        return mine[-1].span_id
    return above.span_id if above is not None and _operation(above) in a.INFERENCE else named


def _agent_above(span: SpanRecord, known: Mapping[str, SpanRecord]) -> str | None:
    """Span id of the nearest agent above `span`; where the chain breaks before one, the id that is missing there.

    Where it leads back into itself, the least id of that ring.
    """
    above, passed = span.parent_id, dict[str, None]()
    while above is not None and above in known and _operation(known[above]) != "invoke_agent":
        if above in passed:
            ring = list(passed)
            return min(ring[ring.index(above) :])
        passed[above] = None
        above = known[above].parent_id
    return above


def _without_rings(trajectories: Sequence[Trajectory], known: Mapping[str, SpanRecord]) -> Iterator[Trajectory]:
    """The trajectories, of which the first of each ring of parents has none, and says so."""
    parents = {one.span_id: one.parent for one in trajectories}
    for one in trajectories:
        above, passed = one.parent, {one.span_id}
        while above is not None and above not in passed:
            passed.add(above)
            above = parents.get(above)
        if above == one.span_id:
            parents[one.span_id] = None
            yield one.model_copy(update={"parent": None, "in_ring": True})
        else:
            yield one.model_copy(update={"in_ring": True}) if _leads_back(one.span_id, known) else one


def _leads_back(span_id: str, known: Mapping[str, SpanRecord]) -> bool:
    """Whether it is a span that no agent is above, and that is its own ancestor."""
    if span_id not in known or _operation(known[span_id]) == "invoke_agent":
        return False
    return _agent_above(known[span_id], known) == span_id


def _trajectory(
    span_id: str,
    members: Sequence[SpanRecord],
    below: Mapping[str, Sequence[SpanRecord]],
    known: Mapping[str, SpanRecord],
    trajectory_ids: Container[str],
    prompts: Prompts,
) -> Trajectory:
    """`below` has what belongs to a model call: the tool calls that it asked for, and its server's own account."""
    own = next((span for span in members if _operation(span) == "invoke_agent"), None)
    parent = None if own is None else _agent_above(own, known)
    named = [own] if own else members
    agent = next((name for span in named if (name := _text(span, a.AGENT_NAME))), "")
    calls = [span for span in members if _operation(span) in a.INFERENCE]
    plans = [plan for span in members if (plan := _json(span, a.PLAN, _ANY)) is not None]
    return Trajectory(
        span_id=span_id,
        agent=agent,
        parent=parent if parent in trajectory_ids else None,
        # Also of an agent whose own span a kill took: its calls have the number too.
        assignment=next((number for span in named if (number := _text(span, a.ASSIGNMENT_ID))), None),
        goal=own and _text(own, a.GOAL),
        status=own and _text(own, a.STATUS),
        plan=plans[-1] if plans else None,
        output=own and _json(own, a.OUTPUT, _ANY),
        decisions=own and _json(own, a.DECISIONS, _ANY),
        error=own and _text(own, a.ERROR),
        turns=tuple(_turn(call, agent, below.get(call.span_id, ()), prompts) for call in calls),
        started_ns=own.start_ns if own else min(span.start_ns for span in members),
        ended_ns=own.end_ns if own else max(span.end_ns for span in members),
    )


def _turn(span: SpanRecord, agent: str, below: Sequence[SpanRecord], prompts: Prompts) -> Turn:
    reasons = span.attributes.get(a.FINISH_REASONS)
    # What a call gave and a person must see first, no model was shown: the span that says what he said follows.
    tools = [one for one in below if _operation(one) == "execute_tool" and _text(one, a.ERROR_TYPE) != WAITS]
    engine = _engine(span, [one for one in below if _operation(one) is None])
    return Turn(
        span_id=span.span_id,
        agent=_text(span, a.AGENT_NAME) or agent,
        policy=_text(span, a.REQUEST_MODEL) or "",
        served_by=_text(span, a.RESPONSE_MODEL),
        adapter_digest=_text(span, a.ADAPTER_DIGEST),
        weights=_text(span, a.WEIGHTS),
        messages=_messages(span, a.INPUT_MESSAGES, prompts.messages),
        response=_reply(span),
        tool_results=tuple(_tool_result(tool) for tool in tools),
        usage=Usage(
            input_tokens=_count(span, a.INPUT_TOKENS),
            output_tokens=_count(span, a.OUTPUT_TOKENS),
            cached_tokens=_count(span, a.CACHED_TOKENS),
        ),
        finish_reason=str(reasons[0]) if isinstance(reasons, list) and reasons else None,
        prompt_token_ids=_prompt_token_ids(span, prompts),
        token_ids=_json(span, a.TOKEN_IDS, _TOKEN_IDS),
        logprobs=_json(span, a.LOGPROBS, _LOGPROBS),
        withheld=TEXT_MISSING if prompts.lacks(span) else withheld(span.attributes),
        demonstration=span.attributes.get(a.DEMONSTRATION) is True,
        error=(_text(span, a.ERROR) or "failed") if span.status == "error" else None,
        queue_s=_seconds(engine, a.ENGINE_QUEUE),
        prefill_s=_seconds(engine, a.ENGINE_PREFILL),
        decode_s=_seconds(engine, a.ENGINE_DECODE),
        started_ns=span.start_ns,
        ended_ns=span.end_ns,
    )


def _engine(span: SpanRecord, engines: Sequence[SpanRecord]) -> SpanRecord | None:
    """The server's account of the answer that counts: a call that was tried again has one for each attempt."""
    answer = _text(span, a.RESPONSE_ID)
    same = [engine for engine in engines if answer is not None and _text(engine, a.RESPONSE_ID) == answer]
    return max(same or engines, key=_full_rank, default=None)


def _tool_result(span: SpanRecord) -> ToolResult:
    # A call that was cancelled has no status of its own, only the span's error.
    return ToolResult(
        span_id=span.span_id,
        tool=_text(span, a.TOOL_NAME) or "",
        arguments=_json(span, a.TOOL_CALL_ARGUMENTS, _ARGUMENTS) or {},
        status=_text(span, a.TOOL_STATUS) or ("failed" if span.status == "error" else "ok"),
        content=read_result(span.attributes.get(a.TOOL_CALL_RESULT)) or _text(span, a.ERROR) or "",
        decisions=_json(span, a.DECISIONS, _ANY),
        started_ns=span.start_ns,
        ended_ns=span.end_ns,
    )


def _operation(span: SpanRecord) -> str | None:
    return _text(span, a.OPERATION)


def _text(span: SpanRecord, name: str) -> str | None:
    value = span.attributes.get(name)
    return value if isinstance(value, str) else None


def _count(span: SpanRecord, name: str) -> int:
    value = span.attributes.get(name)
    return value if isinstance(value, int) else 0


def _seconds(span: SpanRecord | None, name: str) -> float | None:
    value = None if span is None else span.attributes.get(name)
    return float(value) if isinstance(value, int | float) else None


def _prompt_token_ids(span: SpanRecord, prompts: Prompts) -> Sequence[int] | None:
    return prompts.token_ids(span, lambda value: _read(value, _TOKEN_IDS, span, a.PROMPT_TOKEN_IDS) or ()) or None


def _reply(span: SpanRecord) -> Message | None:
    return _messages(span, a.OUTPUT_MESSAGES, lambda span: read_reply(span.attributes))


def _messages(span: SpanRecord, name: str, read: Callable[[SpanRecord], T]) -> T:
    try:
        return read(span)
    except ValueError as error:
        raise _unusable(span, name, str(error)) from None


def _json(span: SpanRecord, name: str, shape: TypeAdapter[T]) -> T | None:
    return _read(span.attributes.get(name), shape, span, name)


def _read(value: JsonValue, shape: TypeAdapter[T], span: SpanRecord, name: str) -> T | None:
    if value is None or (isinstance(value, str) and value.startswith(a.DIGEST_ONLY)):
        return None
    try:
        # Another program's span may hold the value itself where ours has JSON text.
        return shape.validate_json(value) if isinstance(value, str) else shape.validate_python(value)
    except ValidationError as error:
        raise _unusable(span, name, first_mistake(error)) from None


def _unusable(span: SpanRecord, name: str, reason: str) -> StoreError:
    return StoreError(f"trace {span.trace_id}: span {span.span_id} has an unusable {name}: {reason}")
