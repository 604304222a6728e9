"""The crew as an MCP server: any client of the Model Context Protocol gives it tasks and answers what it asks.

What it protects from: over HTTP it answers on this machine only, unless told otherwise, and there it refuses what a web
page sends by way of another name for this machine. A client sees the runs of this crew that wait, no others.

What it does not: there is no login. Whoever reaches the port may run tasks and speak for the person who is asked; give
it an address that others reach only behind a proxy with a login.
"""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Annotated
from uuid import uuid4

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError as RefusedError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from journeyman.runtime.flow import control as interventions
from journeyman.runtime.run.events import Asked, Ended, Event, PlanMade, ReportFiled, ToolUsed, WorkerStarted
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.questions import Question
from journeyman.runtime.store.run_store import RunRecord, RunStore
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, JourneymanError
from journeyman.traces.reports.wording import count
from journeyman.traces.trace import Outcome, Status, Task

PATH = "/mcp"
"""Of the address that HTTP clients connect to."""
ENDINGS = (signal.SIGINT, signal.SIGTERM)
PIECE_BYTES = 65_536
SECONDS_TO_END = 3
"""Which a signal leaves to the requests under way; a run that is kept can be taken up again."""


Prompt = Annotated[str, Field(description="The task, in words")]
Session = Annotated[str | None, Field(description="Tasks of the same session are one conversation")]
RunId = Annotated[str, Field(description="As list_runs or run_task gave it")]
QuestionId = Annotated[str | None, Field(description="Which question, where the run has several")]
Answer = Annotated[str, Field(description="What the person said; where approval is asked for: yes or no, then why")]


class TaskResult(Record):
    """How a task ended, or what it waits for."""

    run_id: str
    status: Status
    answer: str
    error: str | None = None
    """What went wrong, in whole or in part."""
    questions: tuple[Question, ...] = ()
    """What a person must answer before the run goes on; see `answer_run`."""


Told = Annotated[CallToolResult, TaskResult]


class WaitingRun(Record):
    run_id: str
    prompt: str
    questions: tuple[Question, ...]


class WaitingRuns(Record):
    runs: tuple[WaitingRun, ...]


def make_server(runtime: Runtime) -> MCPServer[None]:
    """An MCP server with the tool `run_task`, and where runs are kept also `list_runs` and `answer_run`.

    While a task runs, its client is told of the plan, each tool call and each report. A client that gives up stops it;
    where runs are kept, `journeyman runs` can go on with it.
    """
    crew, runs = runtime.crew, runtime.runs
    server: MCPServer[None] = MCPServer(f"journeyman {crew.name}", log_level="WARNING")
    skills = "".join(f"\n- {worker.name}: {worker.description}" for worker in crew.workers if worker.description)

    @server.tool(description=f"Gives a task to the crew {crew.name!r} and returns its answer.{skills}")
    async def run_task(prompt: Prompt, context: Context, session: Session = None) -> Told:
        task = Task(id=uuid4().hex[:12], prompt=prompt, session=session)
        return await _carried_out(runtime, task, None, context)

    if runs is None:
        return server

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def list_runs() -> WaitingRuns:
        """Lists the runs that wait for a person's answer, with what they ask."""
        return WaitingRuns(runs=tuple(_shown(run) for run in await _waiting(runtime, runs)))

    @server.tool()
    async def answer_run(run_id: RunId, answer: Answer, context: Context, question_id: QuestionId = None) -> Told:
        """Answers what a run asks, as a person did, and goes on with the run once nothing is left to answer."""
        record = await _answered(runtime, runs, run_id, question_id, answer)
        if record.open_questions:
            return _told(_asking(record))
        return await _carried_out(runtime, record.task, record.id, context)

    return server


async def serve(runtime: Runtime, listening: socket.socket | None = None) -> None:
    """Serves the crew over HTTP on a `listening` socket, else over stdio until its client ends; a signal ends both.

    Nothing else may be printed to standard output meanwhile. For a program's main thread only.
    """
    server = make_server(runtime)
    async with runtime:
        if listening is None:
            with _input_ended_by_signals():
                await server.run_stdio_async()
            return
        import uvicorn

        app = server.streamable_http_app(streamable_http_path=PATH, host=listening.getsockname()[0])
        await uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_END)).serve(
            sockets=[listening]
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket for `serve`; raises `ConfigError` where the address can't be had."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror}") from None


@contextmanager
def _input_ended_by_signals() -> Iterator[None]:
    """Standard input that ends at SIGINT and SIGTERM, as where the client closes it.

    The SDK reads it in a thread that nothing else can stop. So another one, which nobody waits for, hands it on.
    """
    outside = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    handed_on = os.fdopen(writing, "wb", buffering=0)

    def hand_on() -> None:
        with suppress(OSError, ValueError), handed_on:  # It is closed where a signal came, broken where nobody reads.
            while piece := os.read(outside, PIECE_BYTES):
                left = memoryview(piece)
                while left:
                    left = left[handed_on.write(left) :]

    threading.Thread(target=hand_on, name="mcp input", daemon=True).start()
    loop = asyncio.get_running_loop()
    for ending in ENDINGS:
        loop.add_signal_handler(ending, handed_on.close)
    try:
        yield
    finally:
        for ending in ENDINGS:
            loop.remove_signal_handler(ending)


async def _carried_out(runtime: Runtime, task: Task, run_id: str | None, context: Context) -> CallToolResult:
    """Runs the task, or goes on with the run of that id, and tells the client of each step."""
    steps = 0
    try:
        async with aclosing(runtime.stream(task, run_id=run_id)) as events:
            async for event in events:
                if isinstance(event, Ended):
                    return _told(await _result(runtime, event.outcome))
                if said := _progress(event):
                    steps += 1
                    await context.report_progress(steps, message=said)
    except JourneymanError as error:
        raise RefusedError(str(error)) from None
    raise AssertionError("a run ends with `Ended`")


async def _result(runtime: Runtime, outcome: Outcome) -> TaskResult:
    questions: tuple[Question, ...] = ()
    if outcome.status == "needs_input" and runtime.runs is not None:
        record = await runtime.runs.get(outcome.run_id)
        questions = () if record is None else record.open_questions
    return TaskResult(
        run_id=outcome.run_id,
        status=outcome.status,
        answer=outcome.answer,
        error=outcome.error,
        questions=questions,
    )


def _told(result: TaskResult) -> CallToolResult:
    """For a model as text, for a program as fields."""
    lines = [result.answer] if result.answer else []
    if result.error is not None:
        lines.append(f"{result.status}: {result.error}")
    for question in result.questions:
        lines.append(f"A person must answer question {question.id} of run {result.run_id}: {question.text}")
        lines += [] if question.content is None else [question.content]
    failed = not result.answer and result.status not in ("ok", "needs_input")
    text = "\n".join(lines) or "The answer is empty."
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=result.model_dump(mode="json"),
        is_error=failed,
    )


def _progress(event: Event) -> str | None:
    match event:
        case PlanMade():
            return f"plan of {count(len(event.plan.assignments), 'assignment')}"
        case WorkerStarted():
            return f"{event.assignment.id} {event.assignment.worker}: {event.assignment.goal}"
        case ToolUsed():
            return f"{event.agent} used {event.tool}: {event.status}"
        case ReportFiled():
            return f"{event.report.assignment.id} {event.report.assignment.worker} ended: {event.report.status}"
        case Asked():
            return f"{event.question.agent} asks: {event.question.text}"
        case _:
            return None


def _asking(record: RunRecord) -> TaskResult:
    return TaskResult(run_id=record.id, status="needs_input", answer="", questions=record.open_questions)


def _shown(record: RunRecord) -> WaitingRun:
    return WaitingRun(run_id=record.id, prompt=record.task.prompt, questions=record.open_questions)


async def _waiting(runtime: Runtime, runs: RunStore) -> list[RunRecord]:
    await runs.open()
    return [run for run in await runs.find(status="needs_input") if run.crew == runtime.crew.name]


async def _answered(runtime: Runtime, runs: RunStore, run_id: str, question_id: str | None, said: str) -> RunRecord:
    """The record of the run with the answer in it."""
    record = next((run for run in await _waiting(runtime, runs) if run.id == run_id), None)
    if record is None:
        raise RefusedError(f"no run {run_id!r} waits for an answer; list_runs shows those that do")
    asked = [one for one in record.open_questions if question_id in (None, one.id)]
    if len(asked) != 1:
        have = ", ".join(one.id for one in record.open_questions) or "none"
        raise RefusedError(f"name one question of run {run_id}: {have}")
    try:
        return await interventions.say(runs, run_id, said, question_id=asked[0].id)
    except JourneymanError as error:
        raise RefusedError(str(error)) from None
