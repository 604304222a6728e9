"""The LangGraph graph: plan → dispatch → worker x n → dispatch … → answer."""

import asyncio
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime as Context
from langgraph.types import Command, Send

from journeyman.agents.orchestrator import PlanError, join, make_plan, single_assignment
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.schedule import next_wave
from journeyman.agents.worker import work
from journeyman.runtime.events import PlanMade, ReportFiled, WorkerStarted
from journeyman.runtime.run import Run
from journeyman.traces import attributes as a
from journeyman.traces.errors import ModelError, StoreError
from journeyman.traces.trace import Status
from journeyman.traces.tracer import Span

MAX_BRANCHES = 32
MAX_WAVES = 64


def _merge(old: dict[str, Report], new: dict[str, Report]) -> dict[str, Report]:
    return old | new


class State(TypedDict, total=False):
    plan: Plan
    reports: Annotated[dict[str, Report], _merge]
    status: Status
    error: str | None
    answer: str


class Work(TypedDict):
    """What a worker is sent: its own assignment and nothing else."""

    assignment: Assignment


def compile_graph() -> CompiledStateGraph[State, Run, State, State]:
    """The graph of every crew; the crew itself comes in the run's context."""
    graph = StateGraph(State, context_schema=Run)
    graph.add_node("plan", _plan, destinations=("dispatch", END))
    graph.add_node("dispatch", _dispatch, destinations=("worker", "answer"))
    graph.add_node("worker", _work, input_schema=Work)
    graph.add_node("answer", _answer)
    graph.add_edge(START, "plan")
    graph.add_edge("worker", "dispatch")
    graph.add_edge("answer", END)
    return graph.compile()


async def _plan(state: State, runtime: Context[Run]) -> Command[Any]:
    run = runtime.context
    orchestrator = run.crew.orchestrator
    if orchestrator is None:
        plan = single_assignment(run.crew, run.task.prompt)
    else:
        attributes = {a.OPERATION: "plan", **run.attributes, a.AGENT_NAME: orchestrator.name}
        try:
            with run.tracer.span(f"plan {orchestrator.name}", parent=run.root, attributes=attributes) as span:
                async with asyncio.timeout(orchestrator.limits.seconds):
                    plan = await make_plan(run.crew, orchestrator, run.task.prompt, run.calls(orchestrator, span))
                span.set_json(a.PLAN, plan.model_dump(mode="json"))
        except PlanError as error:
            return Command(update={"status": error.status, "error": str(error)}, goto=END)
        except ModelError as error:
            return Command(update={"status": "failed", "error": str(error)}, goto=END)
        except TimeoutError:
            late = f"{orchestrator.name} had no plan after {orchestrator.limits.seconds:g} s"
            return Command(update={"status": "timeout", "error": late}, goto=END)
    run.emit(PlanMade(plan=plan))
    return Command(update={"plan": plan, "reports": {}}, goto="dispatch")


def _dispatch(state: State, runtime: Context[Run]) -> Command[Any]:
    wave = next_wave(state["plan"], state["reports"], max_branches=MAX_BRANCHES)
    for report in wave.closed:
        runtime.context.emit(ReportFiled(report=report))
    closed = {report.assignment.id: report for report in wave.closed}
    goto: Any = [Send("worker", Work(assignment=assignment)) for assignment in wave.ready] or "answer"
    return Command(update={"reports": closed}, goto=goto)


async def _work(state: Work, runtime: Context[Run]) -> State:
    """One worker on one assignment; its failure is a report, so that its siblings finish."""
    run, assignment = runtime.context, state["assignment"]
    run.emit(WorkerStarted(assignment=assignment))
    agent = run.crew.worker(assignment.worker)
    attributes = {
        a.OPERATION: "invoke_agent",
        **run.attributes,
        a.AGENT_NAME: agent.name,
        a.AGENT_DESCRIPTION: agent.description or None,
        a.ASSIGNMENT_ID: assignment.id,
        a.ATTEMPT: 1,
        a.GOAL: assignment.goal,
    }
    with run.tracer.span(f"invoke_agent {agent.name}", parent=run.root, attributes=attributes) as span:
        report = await _contained(run, assignment, span)
        span.set({a.STATUS: report.status})
        span.set_json(a.OUTPUT, report.output)
        if report.error is not None:
            span.fail(report.status, report.error)
    run.emit(ReportFiled(report=report))
    return {"reports": {assignment.id: report}}


async def _contained(run: Run, assignment: Assignment, span: Span) -> Report:
    agent = run.crew.worker(assignment.worker)
    tools = {name: run.crew.tools[name] for name in agent.tools}
    try:
        async with asyncio.timeout(agent.limits.seconds):
            return await work(agent, assignment, tools, run.calls(agent, span, assignment.id))
    except TimeoutError:
        return Report(assignment=assignment, status="timeout", error=f"no answer after {agent.limits.seconds:g} s")
    except StoreError:
        raise  # What cannot be recorded must not go on.
    except ModelError as error:
        return Report(assignment=assignment, status="failed", error=str(error))
    except Exception as error:
        return Report(assignment=assignment, status="failed", error=f"{type(error).__name__}: {error}")


def _answer(state: State) -> State:
    reports = state["reports"]
    lost = [report for report in reports.values() if report.status != "ok"]
    answer = join(state["plan"], reports)
    if not lost:
        return {"answer": answer, "status": "ok"}
    first = lost[0]
    error = (
        f"{len(lost)} of {len(reports)} assignments did not end well; first: "
        f"{first.assignment.id} ({first.assignment.worker}) {first.status}: {first.error}"
    )
    return {"answer": answer, "status": "ok" if answer else first.status, "error": error}
