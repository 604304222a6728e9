"""The nodes of a run: a plan, work on its assignments, and the next wave of it or the answer.

What decides does so from the run and its state alone, and says what comes next. Who takes the steps is no matter of
theirs: `graph` has LangGraph do it, which keeps and shows each, `in_memory` does it for runs that nobody keeps.
"""

from typing import NamedTuple

from journeyman.agents.orchestrator import conclude
from journeyman.agents.plan import Plan
from journeyman.agents.replan import may_replan
from journeyman.agents.schedule import Wave, lost, next_wave
from journeyman.runtime.flow.assignment import report_on
from journeyman.runtime.flow.planning import first_plan, more_plan, problems_of
from journeyman.runtime.flow.state import State, Work
from journeyman.runtime.run.approval import checked
from journeyman.runtime.run.endings import EndedError
from journeyman.runtime.run.events import Answered, PlanMade, ReportFiled
from journeyman.runtime.run.run import Run
from journeyman.traces.trace import Status

MAX_BRANCHES = 32


class Decided(NamedTuple):
    """What `plan` or `gather` made of the state, and what is to be done before `gather` looks at it again."""

    update: State
    work: tuple[Work, ...] = ()
    """All at once."""
    ended: bool = False


async def plan(run: Run) -> Decided:
    try:
        update = await first_plan(run)
    except EndedError as error:
        ended: State = {"status": error.status, "error": str(error), "spent": error.spent}
        return Decided(_with_decisions(run, ended), ended=True)
    run.emit(PlanMade(plan=update["plan"]))
    return _sent(run, update["plan"], next_wave(update["plan"], {}, max_branches=MAX_BRANCHES), update)


async def work(run: Run, sent: Work) -> State:
    """One worker on one assignment; its failure is a report, so that its siblings finish."""
    report = await report_on(run, sent["assignment"], sent.get("tried", ()))
    run.emit(ReportFiled(report=report))
    done: State = {"reports": {report.assignment.id: report}, "spent": report.spent}
    return done if run.over_budget is None else {**done, "over_budget": run.over_budget}


async def gather(run: Run, state: State) -> Decided:
    """The next wave of the plan; after the last one what is missing is planned, or the answer given."""
    known, reports = state["plan"], state["reports"]
    wave = next_wave(known, reports, max_branches=MAX_BRANCHES)
    if wave.ready or wave.closed:
        return _sent(run, known, wave, {})
    problems, spent = await problems_of(run, state)
    orchestrator = run.crew.orchestrator
    if orchestrator is not None and run.over_budget is None and may_replan(orchestrator, known, reports, problems):
        more, added = await more_plan(run, orchestrator, state, problems)
        spent += added
        if more is not None:
            run.emit(PlanMade(plan=more))
            wave = next_wave(more, reports, max_branches=MAX_BRANCHES)
            return _sent(run, more, wave, {"plan": more, "spent": spent})
    answered = await _answer(run, {**state, "problems": problems})
    return Decided(_with_decisions(run, {"problems": problems, "spent": spent, **answered}), ended=True)


def _sent(run: Run, plan: Plan, wave: Wave, update: State) -> Decided:
    """Workers for all that can start, and reports of what never will."""
    for report in wave.closed:
        run.emit(ReportFiled(report=report))
    closed = {report.assignment.id: report for report in wave.closed}
    ready = tuple(Work(assignment=one, tried=plan.tried(one)) for one in wave.ready)
    return Decided(_with_decisions(run, {**update, "reports": closed}), ready)


def _with_decisions(run: Run, update: State) -> State:
    """And what was decided over the run so far, which a kill must not take out of its record."""
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
    if answer:
        return "ok", error
    # What it waited for may have failed in place of something that another replacement made good since.
    return "failed" if first.status == "skipped" else first.status, error
