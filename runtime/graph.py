"""The LangGraph graph: plan → worker x n → gather → worker x n → gather … to the answer.

Each step of LangGraph's costs a checkpoint, so that what only looks at what is there belongs to the step before it.
"""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime as Context
from langgraph.types import Command, Send

from journeyman.agents.agent import Crew
from journeyman.agents.orchestrator import conclude
from journeyman.agents.plan import Plan
from journeyman.agents.replan import may_replan
from journeyman.agents.schedule import Wave, lost, next_wave
from journeyman.runtime.asking import checked
from journeyman.runtime.assignment import report_on
from journeyman.runtime.ending import EndedError
from journeyman.runtime.events import Answered, PlanMade, ReportFiled
from journeyman.runtime.planning import first_plan, more_plan, problems_of
from journeyman.runtime.run import Run
from journeyman.runtime.state import State, Work
from journeyman.traces.trace import Status

MAX_BRANCHES = 32


def compile_graph(
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[State, Run, State, State]:
    """The graph of every crew; the crew itself comes in the run's context."""
    graph = StateGraph(State, context_schema=Run)
    graph.add_node("plan", _plan, destinations=("worker", "gather", END))
    graph.add_node("worker", _work, input_schema=Work)
    graph.add_node("gather", _gather, destinations=("worker", "gather", END))
    graph.add_edge(START, "plan")
    graph.add_edge("worker", "gather")
    return graph.compile(checkpointer=checkpointer)


def most_steps(crew: Crew) -> int:
    """More of LangGraph's steps than any run of the crew takes, though each of its assignments wait for another."""
    orchestrator = crew.orchestrator
    assignments = 1 if orchestrator is None else orchestrator.assignments * (1 + orchestrator.replans)
    return 8 + 4 * assignments


async def _plan(state: State, runtime: Context[Run]) -> Command[Any]:
    run = runtime.context
    try:
        update = await first_plan(run)
    except EndedError as error:
        ended: State = {"status": error.status, "error": str(error), "spent": error.spent}
        return Command(update=_decided(run, ended), goto=END)
    run.emit(PlanMade(plan=update["plan"]))
    return _sent(run, update["plan"], next_wave(update["plan"], {}, max_branches=MAX_BRANCHES), update)


async def _work(state: Work, runtime: Context[Run]) -> State:
    """One worker on one assignment; its failure is a report, so that its siblings finish."""
    report = await report_on(runtime.context, state["assignment"], state.get("tried", ()))
    runtime.context.emit(ReportFiled(report=report))
    done: State = {"reports": {report.assignment.id: report}, "spent": report.spent}
    over = runtime.context.over_budget
    return done if over is None else {**done, "over_budget": over}


async def _gather(state: State, runtime: Context[Run]) -> Command[Any]:
    """The next wave of the plan; after the last one what is missing is planned, or the answer given."""
    run, plan, reports = runtime.context, state["plan"], state["reports"]
    wave = next_wave(plan, reports, max_branches=MAX_BRANCHES)
    if wave.ready or wave.closed:
        return _sent(run, plan, wave, {})
    problems, spent = await problems_of(run, state)
    orchestrator = run.crew.orchestrator
    if orchestrator is not None and run.over_budget is None and may_replan(orchestrator, plan, reports, problems):
        more, added = await more_plan(run, orchestrator, state, problems)
        spent += added
        if more is not None:
            run.emit(PlanMade(plan=more))
            wave = next_wave(more, reports, max_branches=MAX_BRANCHES)
            return _sent(run, more, wave, {"plan": more, "spent": spent})
    answered = await _answer(run, {**state, "problems": problems})
    return Command(update=_decided(run, {"problems": problems, "spent": spent, **answered}), goto=END)


def _sent(run: Run, plan: Plan, wave: Wave, update: State) -> Command[Any]:
    """Workers for all that can start, and reports of what never will."""
    for report in wave.closed:
        run.emit(ReportFiled(report=report))
    closed = {report.assignment.id: report for report in wave.closed}
    goto: Any = [Send("worker", Work(assignment=one, tried=plan.tried(one))) for one in wave.ready] or "gather"
    return Command(update=_decided(run, {**update, "reports": closed}), goto=goto)


def _decided(run: Run, update: State) -> State:
    """With what was decided over the run so far, which a kill must not take out of its record."""
    return {**update, "decisions": tuple(run.decisions)} if run.decisions else update


async def _answer(run: Run, state: State) -> State:
    joined = conclude(state["plan"], state["reports"])
    if refused := [problem.reason for problem in state["problems"] if problem.certain]:
        return {"answer": "", "status": "failed", "error": f"the answer was refused: {refused[0]}"}
    status, error = _standing(run, state, joined.text)
    found = await run.evidence_of(state["reports"].values()) if run.guards.watch("answer") else ()
    answer, withheld = await checked(run, "answer", joined.text, evidence=(state["prompt"], *found))
    if withheld is not None:
        return {"answer": "", "status": "blocked", "error": f"the answer was withheld: {withheld}"}
    run.emit(Answered(answer=answer))
    return {"answer": answer, "evidence": joined.evidence, "status": status, "error": error}


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
