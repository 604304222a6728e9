"""The LangGraph graph: plan → dispatch → worker x n → dispatch … → review → (dispatch … →) answer."""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime as Context
from langgraph.types import Command, Send

from journeyman.agents.orchestrator import conclude
from journeyman.agents.replan import may_replan
from journeyman.agents.schedule import lost, next_wave
from journeyman.runtime.asking import checked
from journeyman.runtime.assignment import report_on
from journeyman.runtime.ending import EndedError
from journeyman.runtime.events import Answered, PlanMade, ReportFiled
from journeyman.runtime.planning import first_plan, more_plan, problems_of
from journeyman.runtime.run import Run
from journeyman.runtime.state import State, Work
from journeyman.traces.trace import Status

MAX_BRANCHES = 32
MAX_WAVES = 64


def compile_graph(
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[State, Run, State, State]:
    """The graph of every crew; the crew itself comes in the run's context."""
    graph = StateGraph(State, context_schema=Run)
    graph.add_node("plan", _plan, destinations=("dispatch", END))
    graph.add_node("dispatch", _dispatch, destinations=("worker", "review", "answer"))
    graph.add_node("worker", _work, input_schema=Work)
    graph.add_node("review", _review, destinations=("dispatch", "answer"))
    graph.add_node("answer", _answer)
    graph.add_edge(START, "plan")
    graph.add_edge("worker", "dispatch")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=checkpointer)


async def _plan(state: State, runtime: Context[Run]) -> Command[Any]:
    try:
        update = await first_plan(runtime.context)
    except EndedError as error:
        return Command(update={"status": error.status, "error": str(error), "spent": error.spent}, goto=END)
    runtime.context.emit(PlanMade(plan=update["plan"]))
    return Command(update=update, goto="dispatch")


def _dispatch(state: State, runtime: Context[Run]) -> Command[Any]:
    run = runtime.context
    wave = next_wave(state["plan"], state["reports"], max_branches=MAX_BRANCHES)
    for report in wave.closed:
        run.emit(ReportFiled(report=report))
    closed = {report.assignment.id: report for report in wave.closed}
    # What only plans and joins has nothing to review, and one step less to take.
    then = "review" if run.crew.verify or run.crew.orchestrator is not None else "answer"
    goto: Any = [Send("worker", Work(assignment=assignment)) for assignment in wave.ready] or then
    return Command(update={"reports": closed}, goto=goto)


async def _work(state: Work, runtime: Context[Run]) -> State:
    """One worker on one assignment; its failure is a report, so that its siblings finish."""
    report = await report_on(runtime.context, state["assignment"])
    runtime.context.emit(ReportFiled(report=report))
    return {"reports": {report.assignment.id: report}, "spent": report.spent}


async def _review(state: State, runtime: Context[Run]) -> Command[Any]:
    """Is the answer good enough, and if not, what else is there to do?"""
    run, plan, reports = runtime.context, state["plan"], state["reports"]
    problems, spent = await problems_of(run, state)
    orchestrator = run.crew.orchestrator
    if orchestrator is not None and run.over_budget is None and may_replan(orchestrator, plan, reports, problems):
        more, added = await more_plan(run, orchestrator, state, problems)
        spent += added
        if more is not None:
            run.emit(PlanMade(plan=more))
            return Command(update={"plan": more, "spent": spent}, goto="dispatch")
    return Command(update={"problems": problems, "spent": spent}, goto="answer")


async def _answer(state: State, runtime: Context[Run]) -> State:
    run = runtime.context
    joined = conclude(state["plan"], state["reports"])
    if refused := [problem.reason for problem in state["problems"] if problem.certain]:
        return {"answer": "", "status": "failed", "error": f"the answer was refused: {refused[0]}"}
    status, error = _standing(run, state, joined.text)
    found = await run.evidence_of(state["reports"].values()) if run.guards.watch("answer") else ()
    steps = await run.steps("answer")
    guarded = await checked(run, steps, "answer", joined.text, evidence=(state["prompt"], *found))
    if guarded.blocked is not None:
        return {"answer": "", "status": "blocked", "error": f"the answer was withheld: {guarded.blocked}"}
    run.emit(Answered(answer=guarded.text))
    return {"answer": guarded.text, "evidence": joined.evidence, "status": status, "error": error}


def _standing(run: Run, state: State, answer: str) -> tuple[Status, str | None]:
    """How the run ended, and what is to be said about it."""
    if run.over_budget is not None:
        return "over_budget", run.over_budget
    failed = lost(state["plan"], state["reports"])
    if not failed:
        doubted = [problem.reason for problem in state["problems"]]
        return "ok", f"the judge finds the answer insufficient: {doubted[0]}" if doubted else None
    first = failed[0]
    error = (
        f"{len(failed)} of {len(state['reports'])} assignments did not end well; first: "
        f"{first.assignment.id} ({first.assignment.worker}) {first.status}: {first.error}"
    )
    return "ok" if answer else first.status, error
