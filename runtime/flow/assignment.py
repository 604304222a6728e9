"""One worker on one assignment, from its goal to its report. Whatever goes wrong in it is in the report."""

import asyncio
from collections.abc import Sequence
from functools import partial

from journeyman.agents.agent import Agent
from journeyman.agents.decision import Decision, write_decisions
from journeyman.agents.plan import Assignment, Report
from journeyman.agents.worker import work
from journeyman.runtime.run.approval import checked, may_wait
from journeyman.runtime.run.calls import AgentCalls
from journeyman.runtime.run.endings import HaltedError
from journeyman.runtime.run.events import WorkerStarted
from journeyman.runtime.run.run import Run
from journeyman.traces import attributes as a
from journeyman.traces.capture.tracer import AttributeValue, Span
from journeyman.traces.errors import ModelError, OverBudgetError, StoreError


async def report_on(run: Run, assignment: Assignment, tried: Sequence[str] = ()) -> Report:
    """`tried` is the work in whose place this one is done, the first of it first.

    Raises `StoreError`, and `HaltedError` where work stops without having failed.
    """
    run.emit(WorkerStarted(assignment=assignment))
    agent = run.crew.worker(assignment.worker)
    steps = await run.steps(assignment.id)
    await run.take_over(assignment.id, tried)
    decisions: list[Decision] = []
    attributes = _attributes(run, agent, assignment) if run.tracer.records else {}
    with may_wait(run.tracer.span(f"invoke_agent {agent.name}", parent=run.root, attributes=attributes)) as span:
        calls = AgentCalls(run, agent, span, steps, goal=assignment.goal, work=assignment)
        try:
            report = await _contained(run, agent, assignment, calls, decisions)
        finally:
            if decisions:
                span.set({a.DECISIONS: write_decisions(decisions)})
        _record(span, report)
    return report.model_copy(update={"spent": calls.spent})


async def _contained(
    run: Run, agent: Agent, assignment: Assignment, calls: AgentCalls, decisions: list[Decision]
) -> Report:
    seconds = run.seconds(agent)
    # A task of its own: what cancels the work from within ends this worker, and not the run.
    working = asyncio.ensure_future(_guarded(run, agent, assignment, calls, decisions))
    try:
        async with asyncio.timeout(seconds):
            return await working
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Report(assignment=assignment, status="cancelled", error="it was cancelled from within")
    except TimeoutError:
        return Report(assignment=assignment, status=run.out_of_time(agent), error=f"no answer after {seconds:g} s")
    except (StoreError, HaltedError):
        raise  # What cannot be recorded must not go on, and a question is no failure.
    except OverBudgetError as error:
        return Report(assignment=assignment, status="over_budget", error=str(error))
    except ModelError as error:
        return Report(assignment=assignment, status="failed", error=str(error))
    except Exception as error:
        return Report(assignment=assignment, status="failed", error=f"{type(error).__name__}: {error}")


async def _guarded(
    run: Run, agent: Agent, assignment: Assignment, calls: AgentCalls, decisions: list[Decision]
) -> Report:
    check = partial(checked, run, agent=agent.name, assignment=assignment.id, decide=decisions.extend)
    goal, refused = await check("agent", assignment.goal)
    if refused is not None:
        return Report(assignment=assignment, status="blocked", error=f"the goal was refused: {refused}")
    tools = {name: run.crew.tools[name] for name in agent.tools}
    earlier = run.history if run.crew.orchestrator is None else ()
    if goal == assignment.goal:
        report = await work(agent, assignment, tools, calls, earlier)
    else:
        report = await work(agent, assignment.model_copy(update={"goal": goal}), tools, calls, earlier)
        report = report.model_copy(update={"assignment": assignment})
    if report.status != "ok" or not run.guards.watch("output"):
        return report
    evidence = [assignment.goal, *(run.evidence[span_id] for span_id in report.evidence if span_id in run.evidence)]
    output, refused = await check("output", report.output, evidence=evidence)
    if refused is not None:
        return Report(assignment=assignment, status="blocked", error=f"the output was withheld: {refused}")
    return report.model_copy(update={"output": output})


def _attributes(run: Run, agent: Agent, assignment: Assignment) -> dict[str, AttributeValue | None]:
    return {
        a.OPERATION: "invoke_agent",
        **run.attributes,
        a.AGENT_NAME: agent.name,
        a.AGENT_DESCRIPTION: agent.description or None,
        a.ASSIGNMENT_ID: assignment.id,
        a.ATTEMPT: run.attempt,
        a.GOAL: assignment.goal,
    }


def _record(span: Span, report: Report) -> None:
    span.set({a.STATUS: report.status})
    span.set_json(a.OUTPUT, report.output)
    if report.error is not None:
        span.fail(report.status, report.error)
