"""Demonstrations: work that people recorded in a file of tasks, and the model that plays it."""

import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from pydantic import Field, JsonValue

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.orchestrator import most_assignments, read_assignment, single_assignment, write_plan
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.reply import UnreadableReplyError
from journeyman.agents.schedule import next_wave
from journeyman.agents.turn import read_output
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.flow.nodes import MAX_BRANCHES
from journeyman.tools.parameters import InvalidArgumentsError
from journeyman.traces.base import Config, Record, parse_config
from journeyman.traces.errors import ConfigError, ModelError
from journeyman.traces.messages import ToolCall, Usage
from journeyman.traces.trace import Task

TEACHER = "teacher"
"""The policy under which recorded work is played."""


class WrittenWork(Config):
    """What a person did for one assignment, as the file has it."""

    calls: tuple[JsonValue, ...] = ()
    """The tool calls in order, each `{"<tool>": {<arguments>}}`; a list of several where they are made at once."""
    answer: JsonValue = None
    """What the agent answers: a text, or a list of texts for an agent with `output = "values"`."""


class WrittenAssignment(WrittenWork):
    """A row of a plan, as an orchestrator writes it, with what was done for it."""

    worker: str
    goal: str
    needs: tuple[int, ...] = ()
    each: int | None = None
    values: dict[str, WrittenWork] = Field(default_factory=dict)
    """Of a fan-out (`each`): what was done for each value."""


class WrittenPlan(Config):
    assignments: tuple[WrittenAssignment, ...]


class Work(Record):
    """What a person did for one assignment."""

    calls: tuple[tuple[ToolCall, ...], ...] = ()
    """Turn by turn."""
    answer: JsonValue


class Demonstration(Record):
    """How a person did a whole task."""

    plan: Plan
    work: Mapping[tuple[str, str], Work]
    """By worker and goal, as the runtime gives it to them."""


def read_demonstration(task: Task, crew: Crew) -> Demonstration:
    """What a task's `demonstration` says, held to the crew; raises `ConfigError` naming the task and what to mend.

    A crew without an orchestrator takes `{"calls": [...], "answer": ...}`, one with an orchestrator `{"assignments":
    [...]}`: its own form of a plan, where each row has `calls` and `answer` too, or `values` of them where it fans out.
    """
    origin = f"task {task.id!r}: demonstration"
    said = task.demonstration
    if not isinstance(said, dict):
        raise ConfigError(f"{origin}: write a table of keys, as in {_form(crew)}")
    try:
        if crew.orchestrator is None:
            return _alone(task, parse_config(WrittenWork, said, origin), crew)
        return _planned(parse_config(WrittenPlan, said, origin), crew)
    except UnreadableReplyError as error:
        raise ConfigError(f"{origin}: {error}") from None


def demonstrated(plan: Plan, done: Callable[[Assignment], Work | None]) -> dict[tuple[str, str], Work]:
    """The work that a plan leads to, its goals filled in as the runtime does; `done` says what was done for each."""
    work: dict[tuple[str, str], Work] = {}
    reports: dict[str, Report] = {}
    while (wave := next_wave(plan, reports, max_branches=MAX_BRANCHES)).ready or wave.closed:
        reports |= {report.assignment.id: report for report in wave.closed}
        for assignment in wave.ready:
            if (found := done(assignment)) is None:
                reports[assignment.id] = Report(assignment=assignment, status="failed")
            else:
                reports[assignment.id] = Report(assignment=assignment, status="ok", output=found.answer)
                work[assignment.worker, assignment.goal] = found
    return work


class Demonstrated:
    """Plays every agent of a crew as people did: the plan of each task, then for each assignment its calls and answer.

    What nobody demonstrated raises `ModelError`.
    """

    provider = "journeyman.teacher"
    demonstrates = True

    def __init__(self, crew: Crew, demonstrations: Mapping[str, Demonstration]) -> None:
        """`demonstrations` by the task's id."""
        self._crew = crew
        self._known = demonstrations
        self._count = count(1)

    async def complete(self, request: ModelRequest) -> ModelReply:
        content, calls = self._said(request)
        return ModelReply(
            id=f"{TEACHER}-{next(self._count)}",
            model=request.policy,
            content=content,
            tool_calls=calls,
            finish_reason="tool_calls" if calls else "stop",
            usage=Usage(),
        )

    async def aclose(self) -> None:
        """Nothing to close."""

    def _said(self, request: ModelRequest) -> tuple[str, tuple[ToolCall, ...]]:
        known = self._known.get(request.task_id or "")
        if known is None:
            raise ModelError(f"nobody demonstrated task {request.task_id!r}")
        if request.assignment is None:
            return self._plan(request, known.plan), ()
        agent, goal = self._crew.worker(request.assignment.worker), request.assignment.goal
        work = known.work.get((agent.name, goal))
        if work is None:
            raise ModelError(f"nobody demonstrated for task {request.task_id!r} what {agent.name} does for {goal!r}")
        turn = _replies(request, agent)
        if turn > len(work.calls):
            raise ModelError(f"the demonstrated answer wasn't accepted: {request.messages[-1].content}")
        return _written(work, turn, agent)

    def _plan(self, request: ModelRequest, plan: Plan) -> str:
        orchestrator = self._crew.orchestrator
        if orchestrator is None or request.agent != orchestrator.name or _replies(request, orchestrator):
            raise ModelError(f"nobody demonstrated what {request.agent} says here of task {request.task_id!r}")
        return write_plan(plan)


def _replies(request: ModelRequest, agent: Agent) -> int:
    """How often the agent has spoken: behind its instructions and its examples."""
    shown = 0 if "@" in request.policy else 2 * len(agent.examples)
    return sum(message.role == "assistant" for message in request.messages[1 + shown :])


def _written(work: Work, turn: int, agent: Agent) -> tuple[str, tuple[ToolCall, ...]]:
    """The turn in the agent's form: its text, and the calls beside it where the model's own template has them."""
    calls = work.calls[turn] if turn < len(work.calls) else ()
    if agent.tool_calls == "native":
        if calls:
            return "", calls
        return work.answer if isinstance(work.answer, str) else json.dumps(work.answer, ensure_ascii=False), ()
    if not calls:
        return write_answer(work.answer if isinstance(work.answer, str) else _strings(work.answer)), ()
    texts = [write_call(call.name, call.arguments) for call in calls]
    return texts[0] if agent.parallel_calls == 1 else f"[{', '.join(texts)}]", ()


def _strings(answer: JsonValue) -> list[str]:
    return [str(value) for value in answer] if isinstance(answer, list) else [str(answer)]


def _alone(task: Task, written: WrittenWork, crew: Crew) -> Demonstration:
    plan = single_assignment(crew, task.prompt)
    work = _read_work(written, crew.workers[0], crew, "it")
    return Demonstration(plan=plan, work=demonstrated(plan, lambda assignment: work))


def _planned(written: WrittenPlan, crew: Crew) -> Demonstration:
    rows, most = written.assignments, most_assignments(crew)
    if not 1 <= len(rows) <= most:
        raise UnreadableReplyError(f"it must have 1 to {most} assignments")
    plan = Plan(assignments=tuple(_read_row(row, crew, number) for number, row in enumerate(rows, start=1)))

    def done(assignment: Assignment) -> Work:
        row, where = rows[int(assignment.number) - 1], f"assignment {assignment.number}"
        agent = crew.worker(assignment.worker)
        if assignment.value is None:
            return _read_work(row, agent, crew, where)
        written = row.values.get(assignment.value, WrittenWork())
        return _read_work(written, agent, crew, f"{where}, `values` for {assignment.value!r}")

    return Demonstration(plan=plan, work=demonstrated(plan, done))


def _read_row(row: WrittenAssignment, crew: Crew, number: int) -> Assignment:
    if row.each is not None and (row.calls or row.answer is not None):
        raise UnreadableReplyError(
            f"assignment {number} fans out: write `values`, with calls and an answer for each value of {row.each}"
        )
    if row.each is None and row.values:
        raise UnreadableReplyError(f"assignment {number} has `values`, and no `each` that says whose they are")
    wire = row.model_dump(mode="json", include={"worker", "goal", "needs", "each"})
    return read_assignment(wire, crew, number, range(1, number))


def _read_work(written: WrittenWork, agent: Agent, crew: Crew, where: str) -> Work:
    if written.answer is None:
        raise UnreadableReplyError(f"{where} has no answer: write in `answer` what {agent.name} should say")
    turns = tuple(
        tuple(_read_call(one, agent, crew, where) for one in (turn if isinstance(turn, list) else [turn]))
        for turn in written.calls
    )
    widest = max(map(len, turns), default=0)
    if widest > agent.parallel_calls or not all(turns):
        raise UnreadableReplyError(
            f"{where} makes {widest} calls at once, and {agent.name} 1 to {agent.parallel_calls}: write each call as a "
            "turn of its own, or raise its parallel_calls"
        )
    if len(turns) >= agent.limits.turns:
        raise UnreadableReplyError(
            f"{where} takes {len(turns) + 1} turns, and {agent.name} has {agent.limits.turns}: raise its limits.turns"
        )
    if not turns and agent.rests_on_calls:
        raise UnreadableReplyError(f"{where} has no calls, and {agent.name} must call a tool: write them in `calls`")
    try:
        output = read_output(written.answer, agent)
    except UnreadableReplyError as error:
        raise UnreadableReplyError(f"{where}: {error}, because {agent.name} answers with {agent.output}") from None
    return Work(calls=turns, answer=output)


def _read_call(call: JsonValue, agent: Agent, crew: Crew, where: str) -> ToolCall:
    name, arguments = next(iter(call.items())) if isinstance(call, dict) and len(call) == 1 else ("", None)
    if not isinstance(arguments, dict):
        raise UnreadableReplyError(f'{where}: a call is an object with its tool as the key: {{"<tool>": {{...}}}}')
    if name not in agent.tools:
        raise UnreadableReplyError(
            f"{where} calls {name!r}, which {agent.name} doesn't have; it has: {', '.join(agent.tools) or 'no tool'}"
        )
    try:
        crew.tools[name].arguments.read(arguments)
    except InvalidArgumentsError as error:
        raise UnreadableReplyError(f"{where}: {name} doesn't take these arguments: {error}") from None
    return ToolCall(id="", name=name, arguments=arguments)


def _form(crew: Crew) -> str:
    form: dict[str, Any] = {"calls": [{"TOOL": {}}], "answer": "..."}
    if crew.orchestrator is not None:
        form = {"assignments": [{"worker": crew.workers[0].name, "goal": "...", **form}]}
    return json.dumps(form)
