"""The diff: two runs of one task step by step, and where they parted."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import JsonValue

from journeyman.traces.base import Record
from journeyman.traces.errors import StoreError
from journeyman.traces.trace import ToolResult, Trace, Trajectory, Turn, ending

S = TypeVar("S")

SLOWER = 1.2
"""Ratio of two durations below which they count as the same: that much is the machine."""

NOTICED_S = 0.1
"""Difference of two durations, in seconds, below which they count as the same."""

UNFINISHED = frozenset({None, "needs_input", "paused"})
"""How a part of an agent's work ended that went on in another one."""

CIRCUMSTANCES = frozenset({"policy", "tokens", "seconds"})
"""Fields that may differ between two runs that did the same."""


class Change(Record):
    """One field that differs, as it was in either run."""

    field: str
    a: JsonValue
    b: JsonValue


class Step(Record):
    """A step of one run beside the step of the other run that corresponds to it."""

    kind: Literal["run", "agent", "assignment", "turn", "tool"]
    depth: int
    name: str
    """Whose or which: `lookup 2.1`, `turn 3`, `search`."""
    side: Literal["both", "a", "b"]
    """The runs that have such a step."""
    a: str | None = None
    """Span in the first run, where the step is a span of its own."""
    b: str | None = None
    changes: tuple[Change, ...] = ()

    @property
    def same(self) -> bool:
        return self.side == "both" and not self.changes

    @property
    def parted(self) -> bool:
        """True where the runs did something else, not the same by another policy or at another cost."""
        return self.side != "both" or any(change.field not in CIRCUMSTANCES for change in self.changes)


class Diff(Record):
    a: str
    """Trace id."""
    b: str
    task_id: str | None
    steps: tuple[Step, ...]
    """In order of the work: a step, then what was done within it, one deeper."""

    @property
    def first(self) -> Step | None:
        """The first turn, tool call or assignment in which the runs parted: what differs later may follow from it."""
        return next((step for step in self.steps if step.kind not in ("run", "agent") and step.parted), None)


def diff(a: Trace, b: Trace) -> Diff:
    """Raises `StoreError` where the two are runs of different tasks."""
    if a.task is not None and b.task is not None and (a.task.id, a.task.prompt) != (b.task.id, b.task.prompt):
        raise StoreError(
            f"{a.trace_id[:8]} is a run of task {a.task.id!r} and {b.trace_id[:8]} of {b.task.id!r}: "
            "give two runs of one task"
        )
    run = Step(kind="run", depth=0, name=a.crew or b.crew or "run", side="both", changes=_changes(_run(a), _run(b)))
    task = a.task or b.task
    steps = (run, *_agents(_below(a), _below(b), None, None, 1))
    return Diff(a=a.trace_id, b=b.trace_id, task_id=task and task.id, steps=steps)


class _Form(NamedTuple):
    """How steps of one kind are told apart and compared."""

    kind: Literal["agent", "assignment", "turn", "tool"]
    like: Callable[[Any], Hashable]
    """Steps between which this differs never correspond."""
    exact: Callable[[Any], Hashable]
    """Steps for which this is the same correspond first."""
    fields: Callable[[Any], dict[str, JsonValue]]
    """What is compared."""


Children = dict[str | None, list[Trajectory]]


def _agents(ours: Children, theirs: Children, above_a: str | None, above_b: str | None, depth: int) -> Iterator[Step]:
    """The agents that one agent started in either run, each followed by what it did."""
    for one, other in _paired(ours.get(above_a, []), theirs.get(above_b, []), _AGENT):
        known = one or other
        assert known is not None
        yield _step(_AGENT, depth, " ".join(filter(None, [known.agent, known.assignment])), one, other)
        yield from _turns(one.turns if one else (), other.turns if other else (), depth + 1)
        for mine, yours in _paired(_plan(one), _plan(other), _ASSIGNMENT):
            yield _step(_ASSIGNMENT, depth + 1, f"assignment {(mine or yours or {}).get('id')}", mine, yours)
        # An agent that one run does not have has nobody below it: no span has an empty id.
        yield from _agents(ours, theirs, one.span_id if one else "", other.span_id if other else "", depth + 1)


def _turns(ours: Sequence[Turn], theirs: Sequence[Turn], depth: int) -> Iterator[Step]:
    for place, (one, other) in enumerate(_paired(ours, theirs, _TURN), start=1):
        yield _step(_TURN, depth, f"turn {place}", one, other)
        for mine, yours in _paired(_made_at_once(one), _made_at_once(other), _TOOL):
            known = mine or yours
            assert known is not None
            yield _step(_TOOL, depth + 1, known.tool, mine, yours)


def _paired(ours: Sequence[S], theirs: Sequence[S], form: _Form) -> Iterator[tuple[S | None, S | None]]:
    """Steps that correspond, in order: first those that are the same, then between them those of like kind."""
    for _, i, ii, j, jj in _aligned(ours, theirs, form.exact):
        for tag, k, kk, m, mm in _aligned(ours[i:ii], theirs[j:jj], form.like):
            if tag == "equal":
                yield from zip(ours[i + k : i + kk], theirs[j + m : j + mm], strict=True)
            else:
                yield from ((one, None) for one in ours[i + k : i + kk])
                yield from ((None, other) for other in theirs[j + m : j + mm])


def _aligned(ours: Sequence[S], theirs: Sequence[S], key: Callable[[S], Hashable]) -> Any:
    return SequenceMatcher(None, [key(one) for one in ours], [key(one) for one in theirs], autojunk=False).get_opcodes()


def _step(form: _Form, depth: int, name: str, one: Any, other: Any) -> Step:
    both = one is not None and other is not None
    return Step(
        kind=form.kind,
        depth=depth,
        name=name,
        side="both" if both else "b" if one is None else "a",
        a=getattr(one, "span_id", None),
        b=getattr(other, "span_id", None),
        changes=_changes(form.fields(one), form.fields(other)) if both else (),
    )


def _changes(ours: dict[str, JsonValue], theirs: dict[str, JsonValue]) -> tuple[Change, ...]:
    return tuple(
        Change(field=field, a=ours[field], b=theirs[field])
        for field in ours
        if ours[field] != theirs[field] and (field != "seconds" or _noticed(ours[field], theirs[field]))
    )


def _noticed(ours: JsonValue, theirs: JsonValue) -> bool:
    assert isinstance(ours, float) and isinstance(theirs, float)
    shorter, longer = sorted((ours, theirs))
    return longer - shorter >= NOTICED_S and longer >= SLOWER * shorter


def _below(trace: Trace) -> Children:
    """Trajectories by the one above them, in the order of their assignments: parallel ones begin in any order."""
    whole = _joined(trace.trajectories)
    known = {trajectory.span_id for trajectory in whole}
    below: Children = {}
    for trajectory in sorted(whole, key=lambda one: _place(one.assignment)):
        below.setdefault(trajectory.parent if trajectory.parent in known else None, []).append(trajectory)
    return below


def _joined(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Each agent's work in one piece: of a run that waited or was interrupted it is recorded in parts."""
    whole: dict[str, Trajectory] = {}
    first_parts: dict[str | None, str] = {}
    latest: dict[tuple[str, str | None], str] = {}
    for part in sorted(trajectories, key=lambda one: one.started_ns):
        work = part.agent, part.assignment
        before = whole.get(latest.get(work, ""))
        so_far = _continued(before, part) if before is not None and _goes_on(before, part) else part
        whole[so_far.span_id] = so_far
        first_parts[part.span_id] = latest[work] = so_far.span_id
    return [
        one.model_copy(update={"parent": first_parts.get(one.parent, one.parent), "turns": _ended(one.turns)})
        for one in whole.values()
    ]


def _goes_on(before: Trajectory, after: Trajectory) -> bool:
    """Also what had ended, where it was gone through in a later part of the run: with answers that were kept."""
    return before.status in UNFINISHED or (not after.turns and after.parent != before.parent)


def _continued(before: Trajectory, after: Trajectory) -> Trajectory:
    # A part that a kill cut off has lost its own span, which names what is above it.
    parent = before.parent or after.parent
    kept = {"span_id": before.span_id, "parent": parent, "started_ns": before.started_ns}
    return after.model_copy(update={**kept, "turns": (*before.turns, *after.turns), "plan": after.plan or before.plan})


def _ended(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Without the calls that were cut off: they brought nothing, and where the work went on they were made again."""
    return tuple(
        turn.model_copy(update={"tool_results": tuple(one for one in turn.tool_results if not one.cut_off)})
        for turn in turns
        if not turn.cut_off
    )


def _made_at_once(turn: Turn | None) -> list[ToolResult]:
    """What a reply asked for, in an order that is the same though a person had to see one of the results first."""
    return [] if turn is None else sorted(turn.tool_results, key=_call)


def _place(assignment: str | None) -> tuple[tuple[bool, int, str], ...]:
    parts = (assignment or "").split(".")
    return tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)


def _plan(trajectory: Trajectory | None) -> list[dict[str, JsonValue]]:
    plan = trajectory.plan if trajectory is not None else None
    rows = plan.get("assignments") if isinstance(plan, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _run(trace: Trace) -> dict[str, JsonValue]:
    outcome, score = trace.outcome, trace.label("score")
    return {
        "status": ending(trace),
        "score": None if score is None else score.value,
        "answer": None if outcome is None else outcome.answer,
        "error": None if outcome is None else outcome.error,
        "tokens": trace.usage.tokens,
        "seconds": trace.seconds,
    }


def _agent(one: Trajectory) -> dict[str, JsonValue]:
    return {
        "goal": one.goal,
        "status": one.status or "unfinished",
        "output": one.output,
        "error": one.error,
        "seconds": _seconds(one),
    }


def _turn(one: Turn) -> dict[str, JsonValue]:
    return {
        "policy": one.policy if one.weights else one.served_by or one.policy,
        "reply": None if one.response is None else one.response.content,
        "finish": one.finish_reason,
        "error": one.error,
        "tokens": one.usage.tokens,
        "seconds": _seconds(one),
    }


def _call(one: ToolResult) -> tuple[str, str]:
    return one.tool, str(one.arguments)


def _tool(one: ToolResult) -> dict[str, JsonValue]:
    return {"arguments": one.arguments, "status": one.status, "result": one.content, "seconds": _seconds(one)}


def _seconds(span: Trajectory | Turn | ToolResult) -> float:
    return (span.ended_ns - span.started_ns) / 1e9


def _assignment(row: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: row.get(name) for name in ("worker", "goal", "each", "needs")}


_AGENT = _Form("agent", lambda one: one.agent, lambda one: (one.agent, one.goal), _agent)
_ASSIGNMENT = _Form("assignment", lambda row: row.get("worker"), lambda row: str(_assignment(row)), _assignment)
_TURN = _Form("turn", lambda one: "turn", lambda one: one.response and one.response.content, _turn)
_TOOL = _Form("tool", lambda one: one.tool, _call, _tool)
