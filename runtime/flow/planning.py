"""The orchestrator's part of a run: the first plan, the review of what came of it, and what is added to it."""

import asyncio
from collections.abc import Sequence

from journeyman.agents.agent import Agent
from journeyman.agents.budget import Spent
from journeyman.agents.guards.guardrails import Guards
from journeyman.agents.judge import judge_of
from journeyman.agents.orchestrator import join, make_plan, single_assignment
from journeyman.agents.plan import Plan
from journeyman.agents.replan import replan
from journeyman.agents.review import Problem, review
from journeyman.runtime.flow.state import State
from journeyman.runtime.run.approval import NOBODY, checked, consent, may_wait
from journeyman.runtime.run.calls import AgentCalls
from journeyman.runtime.run.endings import EndedError, timed
from journeyman.runtime.run.run import Run
from journeyman.runtime.run.steps import Steps
from journeyman.runtime.store.questions import Question, about_plan
from journeyman.traces import attributes as a


async def first_plan(run: Run) -> State:
    """The plan that the run begins with; raises `EndedError` where there is none, or may be none."""
    orchestrator = run.crew.orchestrator
    begun: State = {"reports": {}, "problems": ()}
    if orchestrator is None:
        prompt = await _admitted(run, run.guards)
        return {**begun, "prompt": prompt, "plan": single_assignment(run.crew, prompt)}
    steps = await run.steps("plan")
    attributes = {a.OPERATION: "plan", **run.attributes, a.AGENT_NAME: orchestrator.name}
    with may_wait(run.tracer.span(f"plan {orchestrator.name}", parent=run.root, attributes=attributes)) as span:
        calls = AgentCalls(run, orchestrator, span, steps, goal=run.task.prompt)
        try:
            async with timed(run, orchestrator, "plan"):
                prompt, plan = await _guarded_plan(run, orchestrator, calls)
        except EndedError as error:
            raise EndedError(error.status, str(error), calls.spent) from None
        span.set_json(a.PLAN, plan.model_dump(mode="json"))
    if orchestrator.approve:
        _approved(run, orchestrator, steps, plan, calls.spent)
    return {**begun, "prompt": prompt, "plan": plan, "spent": calls.spent}


async def problems_of(run: Run, state: State) -> tuple[tuple[Problem, ...], Spent]:
    """What is wrong with the answer so far, and what finding out cost. A judge that cannot be asked finds nothing."""
    plan, reports = state["plan"], state["reports"]
    answer = join(plan, reports)
    judge = judge_of(run.crew)
    if judge is None:
        return await review(run.crew, state["prompt"], plan, reports, answer, None), Spent()
    steps = await run.steps(f"judge.{len(plan.replans)}")
    attributes = {a.OPERATION: "invoke_agent", **run.attributes, a.AGENT_NAME: judge.name}
    with run.tracer.span(f"invoke_agent {judge.name}", parent=run.root, attributes=attributes) as span:
        calls = AgentCalls(run, judge, span, steps, goal=state["prompt"], final=True)
        try:
            async with timed(run, judge, "verdict"):
                problems = await review(run.crew, state["prompt"], plan, reports, answer, calls)
        except EndedError as error:
            span.set({a.STATUS: error.status})
            span.fail(error.status, str(error))
            return (), calls.spent
        span.set({a.STATUS: "ok"})
        span.set_json(a.OUTPUT, [problem.reason for problem in problems])
        return problems, calls.spent


async def more_plan(
    run: Run, orchestrator: Agent, state: State, problems: Sequence[Problem]
) -> tuple[Plan | None, Spent]:
    """The plan with what the orchestrator adds to it. One that fails to replan has nothing to add."""
    plan = state["plan"]
    steps = await run.steps(f"plan.{len(plan.replans) + 1}")
    attributes = {a.OPERATION: "plan", **run.attributes, a.AGENT_NAME: orchestrator.name}
    with run.tracer.span(f"plan {orchestrator.name}", parent=run.root, attributes=attributes) as span:
        calls = AgentCalls(run, orchestrator, span, steps, goal=state["prompt"])
        try:
            async with timed(run, orchestrator, "plan"):
                more = await replan(
                    run.crew, orchestrator, state["prompt"], plan, state["reports"], calls, problems, run.history
                )
        except EndedError as error:
            span.fail(error.status, str(error))
            return None, calls.spent
        span.set_json(a.PLAN, (more or plan).model_dump(mode="json"))
    if more is not None and orchestrator.approve:
        try:
            _approved(run, orchestrator, steps, more, calls.spent)
        except EndedError:
            return None, calls.spent
    return more, calls.spent


async def _guarded_plan(run: Run, orchestrator: Agent, calls: AgentCalls) -> tuple[str, Plan]:
    """What may change or stop the task comes before the plan, what only warns beside it: a plan does nothing yet."""
    prompt = await _admitted(run, run.guards.stopping)
    planning = make_plan(run.crew, orchestrator, prompt, calls, run.history)
    warning = run.guards.warning.check("task", run.task.prompt)
    plan, warned = await asyncio.gather(planning, warning, return_exceptions=True)
    if isinstance(warned, BaseException):
        raise warned
    run.decide(warned.decisions)
    if isinstance(plan, BaseException):
        raise plan
    return prompt, plan


async def _admitted(run: Run, guards: Guards) -> str:
    """The task as the crew may see it; raises `EndedError`."""
    prompt, refused = await checked(run, "task", run.task.prompt, guards=guards)
    if refused is not None:
        raise EndedError("blocked", f"the task was refused: {refused}")
    return prompt


def _approved(run: Run, orchestrator: Agent, steps: Steps, plan: Plan, spent: Spent) -> None:
    question = Question(
        id=f"{steps.step_key}/{steps.take()}",
        kind="approve_plan",
        agent=orchestrator.name,
        text=about_plan(plan),
    )
    word = consent(run, steps, question)
    if word is None:
        raise EndedError("blocked", f"the plan was not followed: {NOBODY}", spent)
    run.decide([word.decision("approve_plan", "plan")])
    if not word.approved:
        raise EndedError("blocked", f"the plan was not followed: {word.refusal}", spent)
