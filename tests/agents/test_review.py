"""Review: code first, a judge only where a crew wants one."""

from typing import Any

import jsonschema
import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.judge import JUDGE, SCHEMA, judge_of
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.review import Problem, review
from journeyman.traces.errors import ModelError

BOSS = Agent(name="boss", instructions="Plan.", judge=True)
WORKER = Agent(name="lookup", instructions="Look up.")
GOALS = tuple(Assignment(id=str(n), worker="lookup", goal=f"question {n}") for n in (1, 2))
PLAN = Plan(assignments=GOALS)
REPORTS = {
    "1": Report(assignment=GOALS[0], status="ok", output="42"),
    "2": Report(assignment=GOALS[1], status="failed", error="the secret of the machine room"),
}
GOOD = '{"reason": "it is all there", "sufficient": true}'
BAD = '{"reason": "the year is missing", "sufficient": false}'


def crew(orchestrator: Agent | None = BOSS, *verify: str) -> Crew:
    return Crew(name="crew", orchestrator=orchestrator, workers=(WORKER,), verify=verify)


async def problems(desk: Any, crew: Crew, answer: str = "42") -> tuple[Problem, ...]:
    return await review(crew, "How much?", PLAN, REPORTS, answer, desk)


async def test_an_answer_that_code_refuses_is_a_certain_problem_and_not_judged(desk: Any) -> None:
    at_work = desk()
    (problem,) = await problems(at_work, crew(BOSS, "integer"), "a lot")
    assert (problem.source, problem.certain, problem.reason) == ("verify", True, "'a lot' is not a whole number")
    assert at_work.seen == []


async def test_where_work_failed_and_nothing_came_of_it_there_is_nothing_to_review(desk: Any) -> None:
    assert await problems(desk(), crew(BOSS, "integer"), "") == ()


async def test_an_answer_that_is_rightly_empty_is_reviewed(desk: Any) -> None:
    found_nothing = {"1": Report(assignment=GOALS[0], status="ok", output=[])}
    plan = Plan(assignments=GOALS[:1])
    assert await review(crew(), "Which?", plan, found_nothing, "", desk(GOOD)) == ()
    (problem,) = await review(crew(BOSS, "integer"), "Which?", plan, found_nothing, "", desk())
    assert problem.certain


async def test_a_crew_without_a_judge_asks_no_model(desk: Any) -> None:
    at_work = desk()
    assert await problems(at_work, crew(BOSS.model_copy(update={"judge": False}), "integer")) == ()
    assert await review(crew(None, "integer"), "How much?", PLAN, REPORTS, "42", None) == ()
    assert at_work.seen == []


async def test_a_judge_accepts_an_answer_or_gives_its_reason(desk: Any) -> None:
    assert await problems(desk(GOOD), crew()) == ()
    (problem,) = await problems(desk(BAD), crew())
    assert (problem.source, problem.certain, problem.reason) == ("judge", False, "the year is missing")


async def test_a_judge_sees_what_was_not_found_out_but_no_text_of_an_error(desk: Any) -> None:
    at_work = desk(GOOD)
    await problems(at_work, crew())
    assert at_work.seen[0][-1].content == "Task: How much?\nAnswer: 42\nNot found out: question 2"
    assert at_work.schemas == [SCHEMA]


async def test_a_judge_that_cannot_be_understood_is_asked_once_more_and_accepts_nothing(desk: Any) -> None:
    at_work = desk("sure", '{"sufficient": "yes", "reason": "x"}')
    (problem,) = await problems(at_work, crew())
    assert (problem.certain, len(at_work.seen)) == (False, 2)
    assert problem.reason.startswith("the judge gave no usable verdict: it must be a JSON object")
    assert await problems(desk("sure", GOOD), crew()) == ()


async def test_a_judge_that_cannot_be_reached_is_the_runtimes_to_report(desk: Any) -> None:
    with pytest.raises(ModelError):
        await problems(desk(ModelError("gone")), crew())


def test_the_judge_is_an_agent_of_its_own() -> None:
    judge = judge_of(crew())
    assert judge is not None
    assert (judge.name, judge.limits) == (JUDGE, BOSS.limits)
    assert judge_of(crew(None)) is None
    with pytest.raises(ValueError, match="has an agent 'judge'"):
        Crew(name="crew", orchestrator=BOSS, workers=(WORKER.model_copy(update={"name": JUDGE}),))


def test_the_schema_of_a_verdict_takes_a_reason_and_a_boolean() -> None:
    jsonschema.validate({"reason": "x", "sufficient": False}, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"sufficient": True}, SCHEMA)
